/** What the exerciser may do. */
export const FEATURES = [
  'direct',
  'buffered',
  'blocking',
  'vectors',
  'nowait',
  'atomic',
  'truncate',
  'preallocate',
  'punch',
  'zero',
  'collapse',
  'insert',
  'seek',
  'fsync',
  'reopen',
  'remake',
  'concurrent',
  'overlap',
] as const;

export type Feature = (typeof FEATURES)[number];
export type Features = ReadonlySet<Feature>;
