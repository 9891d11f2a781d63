// The engine starts a policy pack with plain Node, which does not read the TypeScript of this project.
require("tsx/cjs");
require("./pack.ts");
