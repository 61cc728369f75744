/** Where this machine gets Debian's packages from, as apt is told (sources.list(5)). */

export const DEFAULT_MIRROR = 'http://deb.debian.org/debian';

/**
 * URI of the first Debian archive among apt's sources; Debian's own when there is none (on Ubuntu, say).
 * @param files contents of *.sources (deb822) and *.list files, those that apt reads.
 */
export function debianMirror(files: readonly { readonly name: string; readonly text: string }[]): string {
  const uris = files.flatMap(({ name, text }) => (name.endsWith('.sources') ? stanzaUris(text) : lineUris(text)));
  const mirror = uris.find((uri) => /^https?:\/\/\S+\/debian\/?$/.test(uri));
  return mirror?.replace(/\/$/, '') ?? DEFAULT_MIRROR;
}

/** Stanzas of `Field: value`, parted by empty lines; a value goes on in lines that begin with a space. */
function stanzaUris(text: string): string[] {
  const stanzas = text.replace(/^#.*\n/gm, '').split(/\n[ \t]*\n/);
  return stanzas.flatMap((stanza) => {
    const fields = new Map(
      [...stanza.matchAll(/^([A-Za-z0-9-]+):((?:.*)(?:\n[ \t].*)*)/gm)].map(([, key = '', value = '']) => [
        key.toLowerCase(),
        value.trim().split(/\s+/),
      ]),
    );
    const off = ['no', 'false', '0', 'off'].includes((fields.get('enabled')?.[0] ?? 'yes').toLowerCase());
    return off || !fields.get('types')?.includes('deb') ? [] : (fields.get('uris') ?? []);
  });
}

/** Lines of `deb [options] URI suite components`. */
const lineUris = (text: string): string[] =>
  [...text.matchAll(/^\s*deb\s+(?:\[[^\]]*\]\s*)?(\S+)/gm)].map(([, uri = '']) => uri);
