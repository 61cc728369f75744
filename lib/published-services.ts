/** Services of the mesh that may be published: each host has one of so many addresses for each of them. */
export const MAX_PUBLISHED_SERVICES = 2047;
