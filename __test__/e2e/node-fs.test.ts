/** The same calls on node:fs and on a real volume: results and errors must have the same shape. */
import { NODE_CASES, same } from '../node-cases.js';
import { e2e, withVolume } from './support.js';

for (const direct of [false, true]) {
  e2e(`node:fs's shapes${direct ? ', every file direct' : ''}`, (t) =>
    withVolume(t, { direct }, async (volume) => {
      let number = 0;
      for (const [name, work] of NODE_CASES) {
        // Direct calls of a few bytes are refused, as Linux does.
        if (direct && /^FileHandle (read|write|truncate|create)/.test(name)) continue;
        number += 1;
        const attempt = await t.try(name, (inner) => same(inner, volume, `/case-${number}`, work));
        attempt.commit();
      }
    }),
  );
}
