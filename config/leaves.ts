/**
 * The kinds of values a stack file has, each with the words that the reference and the error messages need. The error text of
 * a leaf is the form it must have; load.ts makes "is not FORM" and "write FORM" of it.
 */
import * as z from "zod";
import { isUsableHostAddress, parseIPv4 } from "./addresses";

/** What the reference and the error messages say about a key. */
export interface About {
  /** What the key does. */
  readonly text: string;
  /** Why one would change it, or why the default is what it is. */
  readonly why?: string;
  /** Unit of the value, where it has one. */
  readonly unit?: string;
  /** What the value must look like, completing "write ...". */
  readonly form?: string;
  /** How the default comes about, where it depends on something else. */
  readonly derived?: string;
  /** When the key must be given although the schema alone does not demand it. */
  readonly required?: string;
}

/** Where {@link About} is kept, by schema. */
export const about = z.registry<About>();

export function whole(min: number, max: number, words: About) {
  const form = `a whole number from ${min} to ${max}`;
  return z
    .number(form)
    .int(form)
    .min(min, form)
    .max(max, form)
    .register(about, { form, ...words });
}

export function seconds(min: number, max: number, words: About) {
  const form = `a number of seconds from ${min} to ${max}`;
  return z
    .number(form)
    .min(min, form)
    .max(max, form)
    .register(about, { form, unit: "s", ...words });
}

/** Seconds that are counted in hundredths on the wire. */
export function hundredths(min: number, max: number, words: About) {
  const form = `a number of seconds from ${min} to ${max}, in hundredths`;
  return (
    z
      .number(form)
      .min(min, form)
      .max(max, form)
      // Not multipleOf: 0.07 is no multiple of 0.01 in binary.
      .refine((value) => Math.abs(value * 100 - Math.round(value * 100)) < 1e-6, form)
      .register(about, { form, unit: "s", ...words })
  );
}

export function text(accepts: (value: string) => boolean, form: string, words: About) {
  return z
    .string(form)
    .refine(accepts, form)
    .register(about, { form, ...words });
}

export function flag(words: About) {
  const form = "true or false (without quotes)";
  return z.boolean(form).register(about, { form, ...words });
}

export function choice<const T extends readonly [string, ...string[]]>(values: T, words: About) {
  const form = `one of ${values.join(", ")}`;
  return z.enum(values, form).register(about, { form, ...words });
}

const addressForm = "an IPv4 address that a machine can have, such as 192.168.1.101";

export function address(words: About) {
  return text(isHostAddress, addressForm, words);
}

export function machineName(words: About) {
  return text(
    (value) => /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(value),
    "a DNS label: lower-case letters, digits and '-', at most 63, neither starting nor ending with '-'",
    words,
  );
}

export function port(words: About) {
  return whole(1, 65535, words);
}

export function networkInterface(words: About) {
  return text(
    (value) => /^[A-Za-z0-9_.-]{1,15}$/.test(value) && value !== "." && value !== "..",
    "the name of a network interface such as eth0, at most 15 characters",
    words,
  );
}

/** A path that needs no quoting in any of the texts it is written into, and that means one place only. */
export function isPlainPath(value: string): boolean {
  return (
    /^(\/[A-Za-z0-9_@+=,.-]+)+$/.test(value) &&
    !value.split("/").some((part) => part === "." || part === "..")
  );
}

// Not ssh-rsa: the command plugin offers a pinned RSA key with SHA-1 signatures only, which OpenSSH refuses since 8.8.
const hostKeyPattern =
  /^(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/]{40,}={0,2}( [\x20-\x7e]*)?$/;

/** Lower-case DNS name of several labels or one, without a dot at its end. */
export function isDnsName(value: string): boolean {
  return /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/.test(
    value,
  );
}

/** An IPv4 network with its length, or one address. */
export function isNetwork(value: string): boolean {
  const [address = "", length = "32", ...more] = value.split("/");
  return more.length === 0 && parseIPv4(address) !== undefined && /^(3[0-2]|[12]?\d)$/.test(length);
}

/** An IPv4 address that a machine can have. */
export function isHostAddress(value: string): boolean {
  const parsed = parseIPv4(value);
  return parsed !== undefined && isUsableHostAddress(parsed);
}

export function hostKey(whose: string) {
  return text(
    (value) => hostKeyPattern.test(value),
    'a public key as in /etc/ssh/ssh_host_ed25519_key.pub, such as "ssh-ed25519 AAAAC3Nza..."',
    {
      text: `Public SSH host key of ${whose}. A connection to a machine that shows another key is refused.`,
      why: "Without it, anybody on the network path could pose as the machine and receive root's commands.",
      derived: "looked up in `ssh.knownHostsFile`",
      required: "unless `ssh.knownHostsFile` is set",
    },
  );
}

export function userName(words: About) {
  return text(
    (value) => /^[a-z_][a-z0-9_-]{0,30}$/.test(value),
    "the name of a Linux user: lower-case letters, digits, '_' and '-', at most 31",
    words,
  );
}

export function localFile(words: About) {
  // The text ends up in an OpenSSH config, inside double quotes.
  return text(
    (value) => /^[^\0\r\n"\\]+$/.test(value),
    "the path of a file on this computer (~ is your home; no quotes or backslashes)",
    words,
  );
}

/** One line for every reader, of characters that a file can have and that YAML takes from anybody. */
export function isOneLine(value: string): boolean {
  return !/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Noncharacter_Code_Point}\uFEFF]/u.test(value);
}

export function printable(maxLength: number, words: About) {
  return text(
    (value) => value.trim() !== "" && value.length <= maxLength && isOneLine(value),
    `a text of 1 to ${maxLength} characters on one line`,
    words,
  );
}

export function section<T extends z.core.$ZodLooseShape>(shape: T, words: About) {
  return z.strictObject(shape).register(about, words);
}

export function list<T extends z.core.SomeType>(element: T, words: About) {
  return z.array(element).register(about, { form: "a list", ...words });
}
