/**
 * Stands in for the plugins of AWS and of TLS in a preview: takes every resource as it is described, and answers what the program asks
 * of AWS as an account would that has room for everything. It makes nothing.
 */
import { main } from "@pulumi/pulumi/provider/index.js";
import { answers } from "../aws/mocks";

await main(
  {
    check: async (_urn: string, _olds: unknown, news: unknown) => ({ inputs: news }),
    invoke: async (token: string, inputs: Record<string, unknown>) => {
      const answer = answers[token];
      if (answer === undefined) throw new Error(`nobody knows what to answer to ${token}`);
      return { outputs: answer(inputs) };
    },
  },
  process.argv.slice(2),
);
