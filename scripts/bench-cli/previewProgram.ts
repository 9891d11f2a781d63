import { fileURLToPath } from "node:url";
import { Cluster } from "../../components/cluster";
import { readRelease } from "../../components/release";
import { machinesFor, parsed, rawConfig } from "../../test/components/fixture";
import { settled, startMocks } from "../../test/components/mocks";

const realServers = Number(process.argv[2]);
const registered = await startMocks();
const config = parsed(rawConfig(realServers));
const release = readRelease(fileURLToPath(new URL("../../app", import.meta.url)));
new Cluster("bench", { config, machines: machinesFor(config), release });
await settled();
if (registered.length < realServers) throw new Error(`only ${registered.length} resources were registered`);
