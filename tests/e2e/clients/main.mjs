// What the npm clients' users call, and what they meet when they call it wrongly. What breaks it: any answer, status,
// header or stream that one of the clients does not understand.
import { runAll } from './world.mjs';
await import('./anthropic.mjs');
await import('./responses.mjs');
await import('./ai.mjs');
await runAll();
