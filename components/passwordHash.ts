import { createHash } from "node:crypto";
import bcrypt from "bcryptjs";

/** bcrypt's cost. What asks for it keeps the answer, so it is paid once for each password that is tried. */
const ROUNDS = 10;

/**
 * bcrypt's hash of a password, the same one every time: a salt of chance would be a change in every preview. So the salt is made
 * of the password and of where it is used, and two clusters with one password have two hashes.
 *
 * @param place what tells this use of the password from others
 */
export function passwordHash(password: string, place: string): string {
  const salt = createHash("sha256").update(`${place}\0${password}`).digest().subarray(0, 16);
  return bcrypt.hashSync(password, `$2b$${ROUNDS}$${bcrypt.encodeBase64(salt, 16)}`);
}
