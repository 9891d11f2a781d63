import assert from "node:assert/strict";
import fc from "fast-check";
import {
  expandAddresses,
  expandAddressRange,
  formatIPv4,
  isUsableHostAddress,
  maxExpandedAddresses,
  parseIPv4,
} from "../../config/addresses";

const anyAddress = fc.integer({ min: 0, max: 2 ** 32 - 1 });

describe("addresses", () => {
  it("is read as it is written", () => {
    assert.equal(parseIPv4("192.168.1.100"), 0xc0a80164);
    assert.equal(formatIPv4(0xc0a80164), "192.168.1.100");
    fc.assert(fc.property(anyAddress, (address) => parseIPv4(formatIPv4(address)) === address));
  });

  for (const text of [
    "",
    "1.2.3",
    "1.2.3.4.5",
    "1.2.3.256",
    "1.2.3.04",
    "1.2.3.-4",
    "1.2.3.4 ",
    "1.2.3.4/24",
    "0x1.2.3.4",
    "::1",
  ]) {
    it(`does not take ${JSON.stringify(text)} for one`, () => {
      assert.equal(parseIPv4(text), undefined);
    });
  }

  it("takes no text for one that it would not write", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        const address = parseIPv4(text);
        return address === undefined || formatIPv4(address) === text;
      }),
    );
  });

  it("knows which a machine can have", () => {
    const usable = (text: string) => isUsableHostAddress(parseIPv4(text) ?? Number.NaN);
    assert.deepEqual(["10.0.0.1", "192.168.1.100", "223.255.255.1"].map(usable), [true, true, true]);
    assert.deepEqual(["0.0.0.0", "127.0.0.1", "224.0.0.18", "255.255.255.255"].map(usable), [
      false,
      false,
      false,
      false,
    ]);
  });
});

describe("address ranges", () => {
  it("has both ends", () => {
    const addresses = expandAddresses("192.168.1.200-192.168.1.249");
    assert.deepEqual(
      [addresses.length, addresses[0], addresses.at(-1)],
      [50, "192.168.1.200", "192.168.1.249"],
    );
    assert.deepEqual(expandAddresses("192.168.1.254 - 192.168.2.1"), [
      "192.168.1.254",
      "192.168.1.255",
      "192.168.2.0",
      "192.168.2.1",
    ]);
    assert.deepEqual(expandAddresses(["10.0.0.9", "10.0.0.1-10.0.0.2"]), [
      "10.0.0.9",
      "10.0.0.1",
      "10.0.0.2",
    ]);
  });

  it("has as many addresses as its ends are apart, in order", () => {
    fc.assert(
      fc.property(anyAddress, fc.integer({ min: 0, max: maxExpandedAddresses - 1 }), (first, more) => {
        fc.pre(first + more < 2 ** 32);
        const addresses = expandAddresses(`${formatIPv4(first)}-${formatIPv4(first + more)}`);
        assert.deepEqual(
          addresses.map(parseIPv4),
          Array.from({ length: more + 1 }, (_, index) => first + index),
        );
      }),
    );
  });

  it("is refused without being expanded when it is too long", () => {
    const expansion = expandAddressRange("0.0.0.0-255.255.255.255");
    assert.deepEqual(expansion, { ok: false, reason: "names 4294967296 addresses, more than 256" });
    assert.throws(() => expandAddresses(["10.0.0.0-10.0.0.200", "10.0.1.0-10.0.1.200"]), /more than 256/);
    assert.throws(
      () => expandAddresses("10.0.0.2-10.0.0.1"),
      /"10\.0\.0\.2-10\.0\.0\.1" ends before it starts/,
    );
  });

  it("never throws when asked politely", () => {
    fc.assert(fc.property(fc.string(), (text) => typeof expandAddressRange(text).ok === "boolean"));
  });
});
