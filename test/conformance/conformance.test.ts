/**
 * What a program may rely on in the `command` plugin, asked of the real `pulumi` CLI.
 *
 *   npx mocha --config test/conformance/.mocharc.json
 *
 * It runs against the stand-in; against another plugin with COMMAND_PLUGIN=FOLDER (the folder of its executable). With
 * COMMAND_PLUGIN_OTHER=FOLDER, that one has to take over what the first one made. CONFORMANCE_RECORD=FILE writes down
 * every outcome, so that two runs can be compared; CONFORMANCE_KEEP=1 keeps the working folder.
 *
 * It needs sshd and ssh-keygen (packages openssh-server and openssh-client), which it starts and uses as the current
 * user, on loopback ports.
 */
import { failures } from "./failures";
import { makeWorld, type World } from "./harness/world";
import { lifecycle } from "./lifecycle";
import { transport } from "./transport";

describe("the command plugin", () => {
  let world: World | undefined;
  const shared = (): World => {
    if (!world) throw new Error("the suite's servers are not up yet");
    return world;
  };
  before(async function () {
    // The toolchain may have to be built first.
    this.timeout(20 * 60_000);
    world = await makeWorld();
  });
  after(async () => world?.stop());

  describe("keeps a resource's life", () => lifecycle(shared));
  describe("reaches other machines", () => transport(shared));
  describe("says what went wrong", () => failures(shared));
});
