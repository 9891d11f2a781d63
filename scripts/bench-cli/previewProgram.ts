import { Cluster } from "../../components/cluster";
import { machinesFor, parsed, rawConfig, release } from "../../test/components/fixture";
import { settled, startMocks } from "../../test/components/mocks";

const realServers = Number(process.argv[2]);
const registered = await startMocks();
const config = parsed(rawConfig(realServers));
new Cluster("bench", { config, machines: machinesFor(config), release });
await settled();
// kB; the highest that it was.
console.log(process.resourceUsage().maxRSS);
if (registered.length < realServers) throw new Error(`only ${registered.length} resources were registered`);
