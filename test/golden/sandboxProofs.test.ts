// Every line by which a unit of ours gives up a right has an operation that is tried with it and without it, in the lab.
import assert from "node:assert/strict";
import { proofOf, sandboxProofs } from "../security/lab/sandboxProofs";
import { goldenCases } from "./cases";

const lines = goldenCases.flatMap(({ texts }) =>
  Object.entries(texts)
    .filter(([file]) => /\.service(\.d\.conf)?$/.test(file))
    .flatMap(([, text]) => {
      const [, service = ""] = text.split("[Service]\n");
      return (service.split("\n[")[0] ?? "")
        .replaceAll("\\\n", "")
        .split("\n")
        .filter((line) => line !== "");
    }),
);

describe("what the units give up", () => {
  it("is proved, each line by an operation that fails because of it", () => {
    const proved = new Set(lines.map(proofOf).filter((proof) => proof !== undefined));
    // And nothing is proved that no unit has.
    assert.deepEqual(
      sandboxProofs.filter((proof) => !proved.has(proof)).map(({ directive }) => directive),
      [],
    );
  });

  it("is not taken for proved when nobody tried", () => {
    assert.throws(() => proofOf("PrivateUsers=yes"), /nothing proves that PrivateUsers=yes does anything/);
    assert.equal(proofOf("PrivateDevices=no"), undefined);
  });
});
