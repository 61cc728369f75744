/** Where every host's containers find the resolver of their agent: link-local (RFC 3927), the same everywhere. */
export const RESOLVER_ADDRESS = '169.254.100.53';
