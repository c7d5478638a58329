/** Progress: a bar on a terminal, plain lines elsewhere. */
import cliProgress from 'cli-progress';

/** One phase of the job. */
export interface Progress {
  /** Adds to what is done. */
  readonly add: (done: number) => void;
  readonly end: () => void;
}

const LINE_INTERVAL_MS = 5000;

function bar(title: string, total: number, unit: string): Progress {
  const format = `${title.padEnd(28)} [{bar}] {percentage}% | {value}/{total} ${unit}`;
  const single = new cliProgress.SingleBar({ format, hideCursor: true }, cliProgress.Presets.shades_classic);
  single.start(total, 0);
  return { add: (done) => single.increment(done), end: () => single.stop() };
}

function lines(title: string, total: number, unit: string): Progress {
  let value = 0;
  let last = performance.now();
  console.log(`${title} …`);
  return {
    add: (done) => {
      value += done;
      if (performance.now() - last < LINE_INTERVAL_MS) return;
      last = performance.now();
      console.log(`  ${value} of ${total} ${unit}`);
    },
    end: () => {},
  };
}

/** Begins a phase of `total` units. */
export function startProgress(title: string, total: number, unit: string): Progress {
  const start = process.stdout.isTTY ? bar : lines;
  return start(title, Math.max(1, Math.round(total)), unit);
}

/** Runs `work` with a progress that ends whatever happens. */
export async function withProgress<T>(
  about: { readonly title: string; readonly total: number; readonly unit: string },
  work: (progress: Progress) => Promise<T>,
): Promise<T> {
  const progress = startProgress(about.title, about.total, about.unit);
  try {
    return await work(progress);
  } finally {
    progress.end();
  }
}
