/** `npm run bench`: sets up, compiles the benchmark, and runs it with the arguments given. */
import { runCompiled } from './compiled.mjs';

runCompiled('bench');
