/** The closed loop: a fixed number of requests in flight, each slot starting its next one when its last has ended. */
import { createHistogram } from 'node:perf_hooks';

import { allocAligned } from '../src/index.js';
import { REQUEST_BYTES, type Job, type Sample } from './sample.js';
import type { Steps } from './workloads.js';

/** Latencies of one run. They go into a histogram afterwards: recording there costs as much as a request. */
class Latencies {
  #millis = new Float64Array(1 << 16);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  push(millis: number): void {
    if (this.#count === this.#millis.length) {
      const larger = new Float64Array(2 * this.#count);
      larger.set(this.#millis);
      this.#millis = larger;
    }
    this.#millis[this.#count] = millis;
    this.#count += 1;
  }

  percentiles(): { p50Micros: number; p99Micros: number } {
    const histogram = createHistogram();
    for (let index = 0; index < this.#count; index += 1)
      histogram.record(Math.max(1, Math.round((this.#millis[index] as number) * 1e6)));
    return { p50Micros: histogram.percentile(50) / 1000, p99Micros: histogram.percentile(99) / 1000 };
  }
}

const buffers: Buffer[] = [];

/** The same page-aligned buffers for every contestant, filled once. */
function slots(count: number): readonly Buffer[] {
  while (buffers.length < count) {
    const buffer = allocAligned(REQUEST_BYTES);
    for (let index = 0; index < REQUEST_BYTES; index += 1)
      buffer[index] = (index * 31 + buffers.length * 7) & 255;
    buffers.push(buffer);
  }
  return buffers.slice(0, count);
}

function expectWhole(bytes: number | undefined, expected: number): void {
  if (bytes !== expected) throw new Error(`a request moved ${bytes} of ${expected} bytes`);
}

/** Measures around `body`, which pushes each request's latency. */
async function measured(body: (latencies: Latencies) => Promise<void> | void): Promise<Sample> {
  const latencies = new Latencies();
  const cpuBefore = process.cpuUsage();
  const begin = performance.now();
  await body(latencies);
  const seconds = (performance.now() - begin) / 1000;
  const { user, system } = process.cpuUsage(cpuBefore);
  const ops = latencies.count;
  return {
    ops,
    seconds,
    iops: ops / seconds,
    cpuMicrosPerOp: (user + system) / ops,
    ...latencies.percentiles(),
  };
}

/** Takes steps of a promise API, `queueDepth` at a time, until the job's time is over or nothing is left. */
export function closedLoop(job: Job, steps: Steps): Promise<Sample> {
  const { requestBytes } = steps;
  return measured(async (latencies) => {
    const end = performance.now() + job.seconds * 1000;
    const slot = async (buffer: Buffer, index: number): Promise<void> => {
      let started = performance.now();
      while (started < end) {
        const step = steps.promise(buffer, index);
        if (step === undefined) return;
        const { bytesRead, bytesWritten } = await step;
        expectWhole(bytesRead ?? bytesWritten, requestBytes);
        const now = performance.now();
        latencies.push(now - started);
        started = now;
      }
    };
    await Promise.all(slots(job.queueDepth).map(slot));
  });
}

/** Takes steps of a synchronous API: one request in flight. */
export function syncLoop(job: Job, steps: Steps): Promise<Sample> {
  const { requestBytes } = steps;
  const buffer = slots(1)[0] as Buffer;
  return measured((latencies) => {
    let started = performance.now();
    const end = started + job.seconds * 1000;
    while (started < end) {
      const bytes = steps.sync?.(buffer);
      if (bytes === undefined) return;
      expectWhole(bytes, requestBytes);
      const now = performance.now();
      latencies.push(now - started);
      started = now;
    }
  });
}
