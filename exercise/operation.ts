/** What the exerciser does: operations with all their parameters, so that a list of them can be run again. */

/** How a handle was opened and which API it is called by. */
export interface Way {
  readonly direct: boolean;
  /** O_DSYNC. */
  readonly dsync?: boolean;
  /** readSync, writeSync. */
  readonly blocking?: boolean;
  /** An ordinary Buffer, which the engine copies, instead of memory of allocAligned. */
  readonly copied?: boolean;
}

export type FallocateMode = 'allocate' | 'punch-hole' | 'zero-range' | 'collapse-range' | 'insert-range';

/** One operation on one file. Positions and lengths in bytes. */
export type FileOperation = { readonly file: number } & (
  | (Way & {
      readonly k: 'write';
      readonly pos: number;
      /** Several: writev. */
      readonly lens: readonly number[];
      /** Where in the pool of bytes the data begins. */
      readonly from: number;
      /** O_APPEND: `pos` is not looked at. */
      readonly append?: boolean;
      readonly nowait?: boolean;
      readonly atomic?: boolean;
    })
  | (Way & {
      readonly k: 'read';
      readonly pos: number;
      readonly lens: readonly number[];
      readonly nowait?: boolean;
    })
  | { readonly k: 'truncate'; readonly size: number }
  | {
      readonly k: 'fallocate';
      readonly mode: FallocateMode;
      readonly keepSize: boolean;
      readonly pos: number;
      readonly len: number;
    }
  | { readonly k: 'seek'; readonly whence: 'data' | 'hole'; readonly pos: number }
  | { readonly k: 'fsync'; readonly data: boolean }
  /** Unlinked, and made anew. */
  | { readonly k: 'remake' }
);

/** Everything is synced, or unmounted, judged by e2fsck where `check` says so, and mounted again. */
export type VolumeOperation = { readonly k: 'sync' } | { readonly k: 'remount'; readonly check: boolean };

/** Operations that are in flight at once; one on the volume has it for itself. */
export type Round = readonly FileOperation[] | VolumeOperation;

export function isVolumeOperation(round: Round): round is VolumeOperation {
  return !Array.isArray(round);
}

/** How many operations a round is. */
export function countOf(round: Round): number {
  return isVolumeOperation(round) ? 1 : round.length;
}

/** Length of all segments. */
export function bytesOf(operation: { readonly lens: readonly number[] }): number {
  return operation.lens.reduce((sum, bytes) => sum + bytes, 0);
}

/** One round a line. */
export function formatRounds(rounds: readonly Round[]): string {
  return rounds.map((round) => `${JSON.stringify(round)}\n`).join('');
}

export function parseRounds(text: string): Round[] {
  return text
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => JSON.parse(line) as Round);
}
