/**
 * Property values as the engine sends them over gRPC: JSON, in which a few objects and strings carry a meaning of
 * their own (secret, not yet known, asset). The magic strings are part of Pulumi's plugin protocol.
 */
export type Value = null | boolean | number | string | Value[] | PropertyMap;
export interface PropertyMap {
  [key: string]: Value;
}

const SIGNATURE = "4dabf18193072939515e22adb298388d";
const SECRET = "1b47061264138c4ac30d75fd1eb44270";
const OUTPUT = "d0e6a833031e9bbcd3f4e8bde6ca49a4";
const ASSET = "c44067f5952c0a294b673a41bacd8c17";
const ARCHIVE = "0def7320c3a5731c473e5ecbe6d01bc7";

/** A value that is not known before the deployment: one string for each type that it may have. */
export const UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";
const UNKNOWNS = new Set([
  UNKNOWN,
  "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7", // boolean
  "3eeb2bf0-c639-47a8-9e75-3b44932eb421", // number
  "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2", // array
  "030794c1-ac77-496b-92df-f27374a8bd58", // asset
  "e48ece36-62e2-4504-bad9-02848725956a", // archive
  "dd056dcd-154b-4c76-9bd3-c8f88648b5ff", // object
]);

/** True for a plain map: not null, not a list. Assets, secrets and outputs are maps, too. */
export function isMap(value: Value | undefined): value is PropertyMap {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** True for a value that is only known once the deployment runs. */
export function isUnknown(value: Value | undefined): boolean {
  return typeof value === "string" && UNKNOWNS.has(value);
}

/** True for a value under the secret's wrapper. */
export function isSecret(value: Value | undefined): value is PropertyMap {
  return isMap(value) && value[SIGNATURE] === SECRET;
}

/** True for a file or a text (`FileAsset`, `StringAsset`, ...). */
export function isAsset(value: Value | undefined): value is PropertyMap {
  return isMap(value) && value[SIGNATURE] === ASSET;
}

/** True for an archive (`FileArchive`, ...). */
export function isArchive(value: Value | undefined): value is PropertyMap {
  return isMap(value) && value[SIGNATURE] === ARCHIVE;
}

/** The value under the wrapper of a secret, or the value itself. */
export function unwrap(value: Value): Value {
  return isSecret(value) ? unwrap(value.value ?? null) : value;
}

/** Puts the secret's wrapper around a value, once. */
export function secret(value: Value): Value {
  return isSecret(value) ? value : { [SIGNATURE]: SECRET, value };
}

/** An asset that is a file on the machine that runs the deployment. */
export function fileAsset(path: string, hash: string): Value {
  return { [SIGNATURE]: ASSET, hash, path };
}

/** An archive made of assets, by their paths in it. */
export function assetArchive(assets: PropertyMap): Value {
  return { [SIGNATURE]: ARCHIVE, assets };
}

/**
 * Brings what the engine sent into one shape: no nulls in maps (absent and null mean the same), and output values as
 * secrets and unknowns.
 */
function normalise(value: Value): Value {
  if (Array.isArray(value)) return value.map(normalise);
  if (!isMap(value)) return value;
  if (value[SIGNATURE] === OUTPUT) {
    const inner = value.value === undefined ? UNKNOWN : normalise(value.value);
    return value.secret === true ? secret(inner) : inner;
  }
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, inner]) => inner !== null)
      .map(([key, inner]) => [key, normalise(inner)]),
  );
}

/** `normalise` for the top of a request. */
export function normaliseMap(value: PropertyMap | undefined): PropertyMap {
  const result = normalise(value ?? {});
  return isMap(result) ? result : {};
}

/** A copy without any secret's wrapper, for the code that does the work. Assets stay as they are. */
export function reveal(value: Value): Value {
  const inner = unwrap(value);
  if (Array.isArray(inner)) return inner.map(reveal);
  if (!isMap(inner)) return inner;
  return Object.fromEntries(Object.entries(inner).map(([key, item]) => [key, reveal(item)]));
}

/** True when two values are the same, secrecy included. Assets and archives are compared by their hash. */
export function equal(a: Value | undefined, b: Value | undefined): boolean {
  if (Array.isArray(a) || Array.isArray(b)) {
    return (
      Array.isArray(a) && Array.isArray(b) && a.length === b.length && a.every((item, i) => equal(item, b[i]))
    );
  }
  if (isMap(a) && isMap(b)) {
    if ((isAsset(a) && isAsset(b)) || (isArchive(a) && isArchive(b))) return a.hash === b.hash;
    const keys = Object.keys(a);
    return keys.length === Object.keys(b).length && keys.every((key) => key in b && equal(a[key], b[key]));
  }
  return a === b;
}
