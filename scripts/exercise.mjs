/** `npm run exercise`: sets up, compiles the exerciser, and runs it with the arguments given. */
import { runCompiled } from './compiled.mjs';

runCompiled('exercise');
