/** What writes of the policy's tests begin as. */
import type { Kiocb } from '../src/kiocb.js';

type Environment = Pick<Kiocb, 'engine' | 'inode' | 'file' | 'limits' | 'counts' | 'buffer'>;

/** A direct write of nothing at 0, and no wishes. */
export function directKiocb(environment: Environment, changes: Partial<Kiocb>): Kiocb {
  return {
    ...environment,
    offset: 0,
    countBytes: 0,
    posBytes: 0,
    memoryBits: 0,
    direct: true,
    append: false,
    dsync: false,
    sync: false,
    nowait: false,
    atomic: false,
    sharedBecause: undefined,
    failure: undefined,
    ...changes,
  };
}
