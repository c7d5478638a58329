/** Who takes part: the promise and the sync API of each file system, and fio. */
import { rm } from 'node:fs/promises';

import { closedLoop, syncLoop } from './closed-loop.js';
import { REQUEST_BYTES, type Contestant, type Job, type Sample } from './sample.js';
import type { Target } from './targets.js';
import { runProgram } from './tools.js';
import { workloadOf, type Workload } from './workloads.js';

/** The two APIs of a file system; `onHost`: only the workloads that the host's file system is measured in. */
export function apiContestants(target: Target, options: { onHost: boolean }): Contestant[] {
  const runs = (name: string): Workload | undefined => {
    const workload = workloadOf(name);
    return options.onHost && !workload.onHost ? undefined : workload;
  };
  const run = async (job: Job, loop: typeof closedLoop): Promise<Sample> => {
    const steps = await workloadOf(job.workload).start(target, job);
    const before = target.deviceCounts?.();
    let sample: Sample;
    try {
      sample = await loop(job, steps);
    } finally {
      await steps.finish();
    }
    const after = target.deviceCounts?.();
    if (before === undefined || after === undefined) return sample;
    return {
      ...sample,
      deviceWritesPerOp: (after.writes - before.writes) / sample.ops,
      deviceFlushesPerOp: (after.flushes - before.flushes) / sample.ops,
    };
  };
  const promise: Contestant = {
    name: target.name,
    canRun: (workload) => runs(workload) !== undefined,
    run: (job) => run(job, closedLoop),
    close: () => target.close(),
  };
  const sync: Contestant = {
    name: `${target.name} sync`,
    canRun: (workload, queueDepth) => queueDepth === 1 && runs(workload)?.hasSync === true,
    run: (job) => run(job, syncLoop),
    close: async () => {},
  };
  return [promise, sync];
}

/** The part of fio's JSON that is read. */
interface FioOutput {
  readonly jobs: readonly [FioJob];
}
interface FioJob {
  readonly job_runtime: number;
  readonly usr_cpu: number;
  readonly sys_cpu: number;
  readonly read: FioDirection;
  readonly write: FioDirection;
}
interface FioDirection {
  readonly total_ios: number;
  readonly runtime: number;
  readonly clat_ns: { readonly percentile?: Readonly<Record<string, number>> };
}

function sampleOf(output: string): Sample {
  // fio may print warnings before its JSON.
  const [found] = (JSON.parse(output.slice(output.indexOf('{'))) as FioOutput).jobs;
  const direction = found.read.total_ios > 0 ? found.read : found.write;
  const { total_ios: ops, runtime, clat_ns: latency } = direction;
  const seconds = runtime / 1000;
  const cpuMicros = ((found.usr_cpu + found.sys_cpu) / 100) * found.job_runtime * 1000;
  return {
    ops,
    seconds,
    iops: ops / seconds,
    cpuMicrosPerOp: cpuMicros / ops,
    p50Micros: (latency.percentile?.['50.000000'] ?? 0) / 1000,
    p99Micros: (latency.percentile?.['99.000000'] ?? 0) / 1000,
  };
}

/** fio at its best with io_uring: registered file and buffers, one submission per batch, one job. */
export function fioContestant(folder: string, options: { name: string; onHost: boolean }): Contestant {
  return {
    name: options.name,
    canRun: (name) => {
      const workload = workloadOf(name);
      return workload.fio !== undefined && (workload.onHost || !options.onHost);
    },
    run: async (job) => {
      const { file, fileBytes, args } = workloadOf(job.workload).fio ?? {};
      const path = `${folder}/${file ?? 'bench.dat'}`;
      const output = await runProgram('fio', [
        '--name=bench',
        `--filename=${path}`,
        `--bs=${REQUEST_BYTES}`,
        `--size=${fileBytes ?? job.fileBytes}`,
        '--direct=1',
        '--ioengine=io_uring',
        '--fixedbufs=1',
        '--registerfiles=1',
        `--iodepth=${job.queueDepth}`,
        `--iodepth_batch_submit=${job.queueDepth}`,
        '--numjobs=1',
        '--scramble_buffers=0',
        `--randseed=${job.seed}`,
        '--time_based=1',
        `--runtime=${Math.round(job.seconds * 1000)}ms`,
        `--allow_file_create=${file === undefined ? 0 : 1}`,
        '--output-format=json',
        ...(args ?? []),
      ]);
      if (file !== undefined) await rm(path, { force: true });
      return sampleOf(output);
    },
    close: async () => {},
  };
}
