/** Names as bytes: a name need not be UTF-8, and may hold what a terminal obeys. */

const SLASH = Buffer.from('/');

/** Joins a directory and a name. */
export function joinBytes(directory: Buffer, name: Buffer): Buffer {
  return directory.at(-1) === SLASH[0]
    ? Buffer.concat([directory, name])
    : Buffer.concat([directory, SLASH, name]);
}

/** Whether bytes are UTF-8. */
export function isText(bytes: Buffer): boolean {
  return Buffer.from(bytes.toString()).equals(bytes);
}

/** As a string where that says it all, else as bytes. */
export function pathOf(bytes: Buffer): string | Buffer {
  return isText(bytes) ? bytes.toString() : bytes;
}

const SHORT: Readonly<Record<string, string>> = {
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
  '\\': '\\\\',
};

function octal(bytes: Buffer): string {
  return Array.from(bytes, (byte) => `\\${byte.toString(8).padStart(3, '0')}`).join('');
}

/** Text without what a terminal would obey, as `ls -b` shows it. */
export function escapeText(text: string): string {
  // eslint-disable-next-line no-control-regex -- these are what it is about
  return text.replace(/[\u0000-\u001f\u007f-\u009f\\]/g, (char) => SHORT[char] ?? octal(Buffer.from(char)));
}

/** A name for a terminal: bytes that are no text are octal. */
export function escapeName(name: Buffer): string {
  if (isText(name)) return escapeText(name.toString());
  const ascii = (byte: number): string =>
    byte < 0x80 ? escapeText(String.fromCharCode(byte)) : octal(Buffer.of(byte));
  return Array.from(name, ascii).join('');
}

/** Of a sorted list: by bytes. */
export function compareBytes(a: Buffer, b: Buffer): number {
  return Buffer.compare(a, b);
}
