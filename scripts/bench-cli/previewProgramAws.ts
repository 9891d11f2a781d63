import { Cluster } from "../../components/cluster";
import { growHeapSlowly } from "../../components/heap";
import { AwsPlatform } from "../../components/platform/aws/platform";
import { forgetPromiseStacks } from "../../components/stacks";
import { parsedAws, rawAws } from "../../test/aws/fixture";
import { startAws } from "../../test/aws/mocks";
import { release } from "../../test/components/fixture";
import { settled } from "../../test/components/mocks";

forgetPromiseStacks();
growHeapSlowly();
const count = Number(process.argv[2]);
const registered = await startAws({}, false);
const config = parsedAws(rawAws({ realServers: { count }, verifier: undefined }));
const platform = new AwsPlatform("bench", { config, aws: config.aws, jumpDirector: "director-1" });
new Cluster("bench", { config, machines: platform.machines, cloud: platform, release });
await settled();
if (registered.length < 10 * count) throw new Error(`only ${registered.length} resources were registered`);
// kB; the highest that it was.
console.log(process.resourceUsage().maxRSS);
