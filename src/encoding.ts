/** Names in the encoding that the caller asked for. */
import { invalidType, invalidValue } from './errors.js';

/** Encoding, or an object with it; as node:fs takes it. */
export type EncodingOption =
  BufferEncoding | 'buffer' | { encoding?: BufferEncoding | 'buffer' | null } | null;

/** The encoding that options ask for; undefined is UTF-8, or bytes where a call gives bytes. */
export function encodingOf(options: unknown): BufferEncoding | 'buffer' | undefined {
  const encoding: unknown =
    typeof options === 'object' && options !== null ? (options as { encoding?: unknown }).encoding : options;
  if (encoding === undefined || encoding === null || typeof options === 'function') return undefined;
  if (typeof options !== 'string' && typeof options !== 'object')
    throw invalidType('options', 'be one of type string or object', options);
  if (encoding === 'buffer') return 'buffer';
  if (typeof encoding !== 'string' || !Buffer.isEncoding(encoding)) {
    throw invalidValue('encoding', encoding, 'is invalid encoding');
  }
  return encoding;
}

/** A name in an encoding. */
export function named(
  name: string | Uint8Array,
  encoding: BufferEncoding | 'buffer' | undefined,
): string | Buffer {
  if (typeof name === 'string' && (encoding === undefined || encoding === 'utf8' || encoding === 'utf-8'))
    return name;
  const bytes = Buffer.from(name as string);
  return encoding === 'buffer' ? bytes : bytes.toString(encoding);
}

/** Names that each have a zero byte behind them. */
export function splitNames(list: Buffer): Buffer[] {
  const names: Buffer[] = [];
  let start = 0;
  for (let end = list.indexOf(0); end >= 0; end = list.indexOf(0, start)) {
    names.push(list.subarray(start, end));
    start = end + 1;
  }
  return names;
}
