/** `/run/cosyvoice-lvs`, which is root's, and what root puts into the directories of programs in it. */
import { paths } from "./paths";

/**
 * For programs that are not root's and keep something below /run/cosyvoice-lvs: keepalived, whose files are its own (UMask), may have
 * been the first to make that.
 */
export const openRuntime = `ExecStartPre=+/usr/bin/install -d -m 0755 ${paths.runtime}`;

/**
 * The shell command by which root writes a number to a file in a directory that is one of the programs': where there is a link, a rename
 * replaces it, and does not follow it.
 *
 * @param staged name under which it is made in root's own directory; who may do so at the same time takes another. @default new
 */
export function placed(number: number, path: string, staged = "new"): string {
  const made = `${paths.runtime}/${staged}`;
  return `echo ${number} >${made} && mv -fT ${made} ${path}`;
}
