import assert from "node:assert/strict";
import { parse } from "yaml";
import { Cluster } from "../../components/cluster";
import { AwsPlatform } from "../../components/platform/aws/platform";
import type { Manifest } from "../../components/remote/manifest";
import { release } from "../components/fixture";
import { settled } from "../components/mocks";
import {
  deploy,
  EGRESS,
  INGRESS,
  INSTANCE,
  INTERFACE,
  known,
  named,
  policyOf,
  ROUTE,
  rulesOf,
} from "./deploy";
import { parsedAws, rawAws, rawGivenVpc, rawInternet, rawTwoZones } from "./fixture";
import { startAws } from "./mocks";

describe("machines of aws", () => {
  it("asks for a real server with exactly this", async () => {
    const { registered } = await deploy();
    const { userData, ...inputs } = named(registered, INSTANCE, "c-rs-2-instance");
    assert.deepEqual(inputs, {
      ami: "what /aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id names",
      instanceType: "g5.xlarge",
      primaryNetworkInterface: { networkInterfaceId: "c-rs-2-interface.NetworkInterface" },
      iamInstanceProfile: "c-real-servers",
      rootBlockDevice: { volumeType: "gp3", volumeSize: 100, encrypted: true },
      metadataOptions: { httpEndpoint: "enabled", httpTokens: "required", httpPutResponseHopLimit: 1 },
      tags: { Name: "c-rs-2" },
    });
    assert.equal(typeof userData, "string");
    assert.deepEqual(named(registered, INTERFACE, "c-rs-2-interface"), {
      subnetId: "c-network-eu-central-1a.Subnet",
      privateIps: ["10.20.0.33"],
      securityGroups: ["c-firewall-realServers.SecurityGroup"],
      sourceDestCheck: false,
      tags: { Name: "c-rs-2" },
    });
  });

  it("asks for directors apart from each other, and for a verifier with many addresses", async () => {
    const { registered } = await deploy();
    const { placementGroup, instanceType, ami } = named(registered, INSTANCE, "c-director-1-instance");
    assert.deepEqual([placementGroup, instanceType], ["c-directors", "c6i.large"]);
    assert.equal(ami, "what /aws/service/debian/release/12/latest/amd64 names");
    const group = named(registered, "aws:ec2/placementGroup:PlacementGroup", "c-directors");
    assert.equal(group.strategy, "spread");
    assert.equal(named(registered, INTERFACE, "c-client-interface").subnetId, "c-network-public.Subnet");
    const { userData, iamInstanceProfile } = named(registered, INSTANCE, "c-client-instance");
    assert.equal(iamInstanceProfile, undefined);
    assert.deepEqual((parse(String(userData)) as { bootcmd: unknown }).bootcmd, [
      ["ip", "route", "replace", "local", "10.255.1.0/24", "dev", "lo"],
    ]);
  });

  it("puts each machine's own key on it, and one login, and keeps both from sight", async () => {
    const { registered } = await deploy();
    const instance = registered.find(({ name }) => name === "c-rs-1-instance");
    assert.deepEqual(instance?.secrets, ["userData"]);
    const text = String(instance?.inputs.userData);
    assert.match(text, /^#cloud-config\n/);
    assert.deepEqual(parse(text), {
      hostname: "rs-1",
      ssh_deletekeys: true,
      ssh_keys: {
        ed25519_private: "private c-rs-1-host-key\n",
        ed25519_public: "ssh-ed25519 c-rs-1-host-key",
      },
      disable_root: true,
      ssh_pwauth: false,
      users: [
        {
          name: "deploy",
          gecos: "Deployments",
          shell: "/bin/bash",
          lock_passwd: true,
          sudo: "ALL=(ALL) NOPASSWD:ALL",
          ssh_authorized_keys: ["ssh-ed25519 c-login-key"],
        },
      ],
    });
  });

  it("buys spot instances when told, and never as directors", async () => {
    const { registered } = await deploy(rawAws({ realServers: { count: 2, spot: true } }));
    assert.deepEqual(named(registered, INSTANCE, "c-rs-1-instance").instanceMarketOptions, {
      marketType: "spot",
      spotOptions: { spotInstanceType: "persistent", instanceInterruptionBehavior: "stop" },
    });
    assert.equal(named(registered, INSTANCE, "c-director-1-instance").instanceMarketOptions, undefined);
  });

  it("leaves machines that serve as they are when images and types change", async () => {
    const { options } = await deploy();
    assert.deepEqual(options.get(`${INSTANCE} c-rs-1-instance`)?.ignoreChanges, [
      "ami",
      "userData",
      "instanceType",
      "rootBlockDevice",
    ]);
    const pin = options.get("aws:ssm/parameter:Parameter c-real-server-image")?.ignoreChanges;
    assert.deepEqual(pin, ["insecureValue", "description"]);
  });

  it("starts from an image that is named without asking for it", async () => {
    const image = "ami-0123456789abcdef0";
    const { registered } = await deploy(rawAws({ realServers: { count: 2, image } }));
    assert.equal(named(registered, INSTANCE, "c-rs-1-instance").ami, image);
    assert.ok(!registered.some(({ name }) => name === "c-real-server-image"));
  });

  it("lets AWS check the addresses of real servers that NAT hides", async () => {
    const { registered } = await deploy(rawInternet());
    assert.equal(named(registered, INTERFACE, "c-rs-1-interface").sourceDestCheck, true);
    assert.equal(named(registered, INTERFACE, "c-director-1-interface").sourceDestCheck, false);
  });

  it("touches one machine's resources for one more", async () => {
    const names = async (count: number) => {
      const { registered } = await deploy(rawAws({ realServers: { count } }));
      return new Map(registered.map(({ type, name, inputs }) => [`${type} ${name}`, JSON.stringify(inputs)]));
    };
    const [two, three] = [await names(2), await names(3)];
    const changed = [...three].filter(([key, text]) => two.get(key) !== text).map(([key]) => key);
    assert.deepEqual(changed.sort(), [
      `${INSTANCE} c-rs-3-instance`,
      `${INTERFACE} c-rs-3-interface`,
      "tls:index/privateKey:PrivateKey c-rs-3-host-key",
    ]);
    assert.equal(three.size, two.size + 3);
  });
});

describe("the network of aws", () => {
  it("sends the cluster out through NAT, and what goes to administrators through the gateway", async () => {
    const { registered } = await deploy();
    const table = "c-network-eu-central-1a.RouteTable";
    const routes = registered
      .filter(({ type, inputs }) => type === ROUTE && inputs.routeTableId === table)
      .map(({ inputs: { routeTableId: _, destinationCidrBlock, ...way } }) => [destinationCidrBlock, way]);
    assert.deepEqual(Object.fromEntries(routes), {
      "0.0.0.0/0": { natGatewayId: "c-network-nat.NatGateway" },
      "203.0.113.7/32": { gatewayId: "c-network-internet.InternetGateway" },
      "10.255.0.100/32": { networkInterfaceId: "c-director-1-interface.NetworkInterface" },
      "10.255.1.0/24": { networkInterfaceId: "c-client-interface.NetworkInterface" },
    });
    assert.equal(
      named(registered, "aws:ec2/subnet:Subnet", "c-network-eu-central-1a").mapPublicIpOnLaunch,
      false,
    );
  });

  it("lets nothing through by default, and logs what is refused", async () => {
    const { registered } = await deploy();
    const unused = named(registered, "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup", "c-network-unused");
    assert.deepEqual([unused.ingress, unused.egress], [[], []]);
    assert.equal(named(registered, "aws:ec2/flowLog:FlowLog", "c-network-flows").trafficType, "REJECT");
    const quiet = rawAws({ network: { ...(rawAws().aws as { network: object }).network, flowLogs: false } });
    assert.ok(!(await deploy(quiet)).registered.some(({ type }) => type === "aws:ec2/flowLog:FlowLog"));
  });

  it("makes no network in a given one, but a route in the tables that were named", async () => {
    const { registered } = await deploy(rawGivenVpc());
    const types = new Set(registered.map(({ type }) => type));
    for (const type of ["vpc:Vpc", "subnet:Subnet", "natGateway:NatGateway", "routeTable:RouteTable"]) {
      assert.ok(!types.has(`aws:ec2/${type}`), type);
    }
    const routes = registered.filter(({ type }) => type === ROUTE);
    assert.deepEqual(
      routes.map(({ name, inputs }) => [name, inputs.routeTableId]),
      [["c-vip-rtb-0123456789abcdef0", "rtb-0123456789abcdef0"]],
    );
    assert.equal(named(registered, INTERFACE, "c-rs-1-interface").subnetId, "subnet-0123456789abcdef0");
    assert.ok(!types.has("aws:ec2/eip:Eip"), "who comes by private ways needs no public address");
  });

  it("gives two zones a subnet, a route and a door to the share each", async () => {
    const { registered } = await deploy(rawTwoZones());
    assert.equal(
      named(registered, INTERFACE, "c-director-2-interface").subnetId,
      "c-network-eu-central-1b.Subnet",
    );
    const vip = registered.filter(({ name, type }) => type === ROUTE && name.startsWith("c-vip-"));
    assert.deepEqual(vip.map(({ name }) => name).sort(), [
      "c-vip-eu-central-1a",
      "c-vip-eu-central-1b",
      "c-vip-public",
    ]);
    const targets = registered.filter(({ type }) => type === "aws:efs/mountTarget:MountTarget");
    assert.deepEqual(
      targets.map(({ inputs }) => inputs.subnetId),
      ["c-network-eu-central-1a.Subnet", "c-network-eu-central-1b.Subnet"],
    );
  });
});

describe("security groups of aws", () => {
  it("opens to whom and for what, and nothing else (DR)", async () => {
    const { registered } = await deploy();
    assert.deepEqual(rulesOf(registered, "directors", INGRESS), [
      "112 directors",
      "tcp 22 203.0.113.7/32",
      "tcp 22 directors",
      "tcp 7860 10.20.0.0/16",
      "tcp 7860 10.20.0.10/32",
      "tcp 7860 10.20.0.11/32",
      "tcp 7860 10.255.1.0/24",
      "tcp 7861 directors",
      "tcp 7861 realServers",
    ]);
    assert.deepEqual(rulesOf(registered, "directors", EGRESS), [
      "112 directors",
      "tcp 22 directors",
      "tcp 22 realServers",
      "tcp 22 verifier",
      "tcp 443 0.0.0.0/0",
      "tcp 7860 10.255.0.100/32",
      "tcp 7860 realServers",
      "tcp 7861 directors",
      "tcp 80 0.0.0.0/0",
    ]);
    assert.deepEqual(rulesOf(registered, "realServers", INGRESS), [
      "tcp 22 directors",
      "tcp 7860 10.20.0.0/16",
      "tcp 7860 10.20.0.10/32",
      "tcp 7860 10.20.0.11/32",
      "tcp 7860 10.255.1.0/24",
      "tcp 7860 directors",
      "tcp 7860 realServers",
    ]);
    assert.deepEqual(rulesOf(registered, "realServers", EGRESS), [
      "tcp 2049 share",
      "tcp 443 0.0.0.0/0",
      "tcp 7860 realServers",
      "tcp 7861 directors",
      "tcp 80 0.0.0.0/0",
    ]);
    assert.deepEqual(rulesOf(registered, "share", INGRESS), ["tcp 2049 realServers"]);
    assert.deepEqual(rulesOf(registered, "share", EGRESS), []);
    assert.deepEqual(rulesOf(registered, "verifier", INGRESS), ["tcp 22 directors"]);
  });

  it("lets tunnels through for TUN, and their replies out", async () => {
    const { registered } = await deploy(rawTwoZones());
    assert.ok(rulesOf(registered, "realServers", INGRESS).includes("4 directors"));
    assert.ok(!rulesOf(registered, "realServers", INGRESS).includes("tcp 7860 10.20.0.0/16"));
    assert.ok(rulesOf(registered, "realServers", EGRESS).includes("tcp 1024 65535 10.20.0.0/16"));
    assert.ok(rulesOf(registered, "directors", EGRESS).includes("4 realServers"));
  });

  it("lets no client at the real servers behind NAT", async () => {
    const { registered } = await deploy(rawInternet());
    assert.deepEqual(rulesOf(registered, "realServers", INGRESS), [
      "tcp 22 directors",
      "tcp 7860 directors",
      "tcp 7860 realServers",
    ]);
    assert.ok(rulesOf(registered, "directors", INGRESS).includes("tcp 7860 0.0.0.0/0"));
  });
});

describe("the VIP of aws", () => {
  it("is a route whose end belongs to the directors once it is there", async () => {
    const { registered, options, platform } = await deploy();
    assert.deepEqual(named(registered, ROUTE, "c-vip-public"), {
      routeTableId: "c-network-public.RouteTable",
      destinationCidrBlock: "10.255.0.100/32",
      networkInterfaceId: "c-director-1-interface.NetworkInterface",
    });
    assert.deepEqual(options.get(`${ROUTE} c-vip-public`)?.ignoreChanges, ["networkInterfaceId"]);
    assert.equal(await known(platform.address), "10.255.0.100");
  });

  it("may be moved in these route tables by the directors, and by nobody else", async () => {
    const { registered } = await deploy();
    assert.deepEqual(policyOf(registered, "c-vip-mover"), {
      Version: "2012-10-17",
      Statement: [
        {
          Sid: "Look",
          Effect: "Allow",
          Action: ["ec2:DescribeRouteTables", "ec2:DescribeNetworkInterfaces"],
          Resource: "*",
        },
        {
          Sid: "MoveTheRoute",
          Effect: "Allow",
          Action: "ec2:ReplaceRoute",
          Resource: [
            "arn:aws:ec2:eu-central-1:123456789012:route-table/c-network-public.RouteTable",
            "arn:aws:ec2:eu-central-1:123456789012:route-table/c-network-eu-central-1a.RouteTable",
          ],
        },
      ],
    });
    const policies = registered.filter(({ type }) => type === "aws:iam/rolePolicy:RolePolicy");
    assert.deepEqual(policies.map(({ name, inputs }) => [name, inputs.role]).sort(), [
      ["c-network-flows", "c-network-flows.Role"],
      ["c-share-mount", "c-real-servers.Role"],
      ["c-vip-mover", "c-directors.Role"],
    ]);
  });

  it("is an Elastic IP on an address that moves, for the internet", async () => {
    const { registered, options, platform } = await deploy(rawInternet());
    assert.deepEqual(named(registered, "aws:ec2/eip:Eip", "c-vip-elastic"), {
      domain: "vpc",
      tags: { Name: "c-vip", "cosyvoice-lvs:part": "vip" },
    });
    assert.deepEqual(options.get(`${INTERFACE} c-director-1-interface`)?.ignoreChanges, [
      "privateIps",
      "privateIpsCount",
    ]);
    assert.equal(await known(platform.address), "198.51.100.7");
    assert.deepEqual((policyOf(registered, "c-vip-mover") as { Statement: unknown[] }).Statement.slice(1), [
      {
        Sid: "MoveTheAddress",
        Effect: "Allow",
        Action: "ec2:AssignPrivateIpAddresses",
        Resource: [1, 2].map(
          (n) =>
            `arn:aws:ec2:eu-central-1:123456789012:network-interface/c-director-${n}-interface.NetworkInterface`,
        ),
      },
      {
        Sid: "MoveTheElasticIp",
        Effect: "Allow",
        Action: "ec2:AssociateAddress",
        Resource: [
          "arn:aws:ec2:eu-central-1:123456789012:elastic-ip/c-vip-elastic.allocation",
          ...[1, 2].map(
            (n) =>
              `arn:aws:ec2:eu-central-1:123456789012:network-interface/c-director-${n}-interface.NetworkInterface`,
          ),
        ],
      },
    ]);
  });
});

describe("the share of aws", () => {
  it("is encrypted, elastic, backed up, and outlives the stack", async () => {
    const { registered, options } = await deploy();
    assert.deepEqual(named(registered, "aws:efs/fileSystem:FileSystem", "c-share-files"), {
      encrypted: true,
      throughputMode: "elastic",
      tags: { Name: "c-share" },
    });
    assert.equal(options.get("aws:efs/fileSystem:FileSystem c-share-files")?.retainOnDelete, true);
    const backup = named(registered, "aws:efs/backupPolicy:BackupPolicy", "c-share-backup");
    assert.deepEqual(backup.backupPolicy, { status: "ENABLED" });
    const { posixUser, rootDirectory } = named(
      registered,
      "aws:efs/accessPoint:AccessPoint",
      "c-share-access",
    );
    assert.deepEqual(posixUser, { uid: 7860, gid: 7860 });
    assert.deepEqual(rootDirectory, {
      path: "/outputs",
      creationInfo: { ownerUid: 7860, ownerGid: 7860, permissions: "0755" },
    });
  });

  it("is mounted by real servers, through its access point, by TLS, and by nobody else", async () => {
    const { registered } = await deploy();
    const file = "arn:aws:made-up:::c-share-files";
    const Condition = {
      StringEquals: { "elasticfilesystem:AccessPointArn": "arn:aws:made-up:::c-share-access" },
    };
    const Action = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"];
    assert.deepEqual(policyOf(registered, "c-share-mount"), {
      Version: "2012-10-17",
      Statement: [{ Sid: "MountTheShare", Effect: "Allow", Action, Resource: file, Condition }],
    });
    const { policy } = named(registered, "aws:efs/fileSystemPolicy:FileSystemPolicy", "c-share-policy");
    assert.deepEqual(JSON.parse(String(policy)), {
      Version: "2012-10-17",
      Statement: [
        {
          Sid: "RealServersThroughTheAccessPoint",
          Effect: "Allow",
          Principal: { AWS: "arn:aws:made-up:::c-real-servers" },
          Action,
          Resource: file,
          Condition,
        },
        {
          Sid: "NothingInClear",
          Effect: "Deny",
          Principal: { AWS: "*" },
          Action: "*",
          Resource: file,
          Condition: { Bool: { "aws:SecureTransport": "false" } },
        },
      ],
    });
  });
});

describe("the name of aws", () => {
  it("names the service where a zone is given", async () => {
    const dns = { zoneId: "Z0123456789ABC", name: "speech.example.org" };
    const { registered, platform } = await deploy(rawAws({ dns }));
    assert.deepEqual(named(registered, "aws:route53/record:Record", "c-name"), {
      ...dns,
      type: "A",
      ttl: 300,
      records: ["10.255.0.100"],
    });
    assert.equal(await known(platform.address), "speech.example.org");
  });
});

describe("what the rest of the program gets of aws", () => {
  it("is machines whose keys are known, through the director that answers", async () => {
    const { platform } = await deploy(rawAws(), "director-2");
    const [, , rs1] = platform.machines;
    assert.ok(rs1);
    const { name, role, address, endpoint, access, incarnation } = rs1;
    assert.deepEqual([name, role, address, endpoint.user], ["rs-1", "realServer", "10.20.0.32", "deploy"]);
    assert.equal(await known(endpoint.address), "10.20.0.32");
    assert.equal(await known(endpoint.hostKey), "ssh-ed25519 c-rs-1-host-key");
    assert.equal(await known(access.privateKey), "private c-login-key\n");
    assert.equal(await known(access.jumpHost?.hostKey), "ssh-ed25519 c-director-2-host-key");
    assert.equal(await known(access.jumpHost?.address), "198.51.100.7");
    assert.equal(await known(incarnation), "c-rs-1-instance.Instance");
  });

  it("becomes a cluster whose commands name the machine they are for", async () => {
    const registered = await startAws();
    const config = parsedAws();
    const platform = new AwsPlatform("c", { config, aws: config.aws, jumpDirector: "director-1" });
    const cluster = new Cluster("c", { config, machines: platform.machines, cloud: platform, release });
    await settled();
    const command = (name: string) => named(registered, "command:remote:Command", name);
    assert.equal(
      command("c-rs-1-real-server").create,
      "sudo -n /usr/local/lib/cosyvoice-lvs/apply apply # c-rs-1-instance.Instance",
    );
    const manifest = (name: string) => JSON.parse(String(command(name).stdin)) as Manifest;
    const director = manifest("c-director-1-director");
    assert.deepEqual(Object.keys(director.units ?? {}), [
      "cosyvoice-health.service",
      "cosyvoice-rules.service",
      "cosyvoice-vip-mover.service",
      "keepalived.service",
      "cosyvoice-vrrp-guard.service",
      "cosyvoice-turns.service",
    ]);
    assert.ok(director.packages?.includes("python3-boto3"));
    const mount = manifest("c-outputs-rs-1");
    const unit = mount.files?.["/etc/systemd/system/root-CosyVoice-outputs.mount"]?.content ?? "";
    assert.match(unit, /^What=c-share-files\.FileSystem:\/$/m);
    assert.match(unit, /^Options=tls,iam,accesspoint=c-share-access\.AccessPoint,/m);
    assert.equal(mount.steps?.[0]?.name, "install mount.efs");
    assert.equal(
      command("c-verification-aws-director-2").create,
      "sudo -n /usr/local/lib/cosyvoice-lvs/vip-mover check /etc/cosyvoice-lvs/vip-mover.json",
    );
    const { unchecked, port } = JSON.parse(String(command("c-verification-aws-director-1").stdin)) as {
      unchecked: string[];
      port: number;
    };
    assert.deepEqual(unchecked, ["10.20.0.10", "10.20.0.11", "10.20.0.32", "10.20.0.33"]);
    assert.equal(port, 7860);
    assert.equal(await known(cluster.url), "http://10.255.0.100:7860");
  });
});
