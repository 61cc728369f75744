/** The agent, put together: everything is made here, started in order, and stopped in the opposite order. Part of main. */

import { mkdir } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';
import { SessionClient } from '../gen/weft/v1/session.ts';
import { systemClock as realClock } from '../lib/clock.ts';
import type { AgentConfig } from '../lib/config.ts';
import { WeftError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { Conflict, Drift, View } from '../lib/model.ts';
import { channelCredentials, channelOptions } from '../lib/rpc.ts';
import { Scope } from '../lib/scope.ts';
import { readTls } from '../lib/tls.ts';
import { Abilities } from './abilities.ts';
import { AddressBook } from './addresses.ts';
import { Attachments } from './attach/index.ts';
import { isNamespaceGone } from './attach/namespaces.ts';
import { placesOf } from './attach/places.ts';
import { AbsenceWatch } from './attach/watch.ts';
import { describeMaps } from './bpf/describe.ts';
import { kernelDriver } from './bpf/start.ts';
import { systemClock } from './clock.ts';
import { ContainerRoutes } from './container-routes.ts';
import { devicesOf } from './contract.ts';
import { BRIDGE } from './desired.ts';
import { DockerSide } from './docker/index.ts';
import { JoinWaiter } from './docker/join-wait.ts';
import { driftEvent } from './drift-event.ts';
import { every } from './every.ts';
import { capabilitiesOf, hostIdOf, hostRecord, ovsRun, ovsVersion, teacher } from './facts.ts';
import { assignTransit } from './gateway/assign.ts';
import { GatewayHost, hasIpv6 } from './gateway/host.ts';
import { FileJournal } from './journal.ts';
import { Kernel } from './kernel.ts';
import { LinkDriver } from './link/driver.ts';
import { Neighbours } from './link/neighbours.ts';
import { agentMetrics } from './metrics.ts';
import { MulticastSide } from './multicast/index.ts';
import { OpenFlowClient } from './openflow/client.ts';
import { FlowDriver } from './openflow/driver.ts';
import { formatFlow } from './openflow/format.ts';
import { OvsDriver } from './ovs/driver.ts';
import { Ovsdb } from './ovs/ovsdb.ts';
import { externalsOf, unreachable, vtepsOf } from './peers.ts';
import { PolicySide } from './policies/index.ts';
import { probeChecksums, sweepProbe } from './probe/checksum.ts';
import { probedSide, probeHost, problemOf, userspaceTso } from './probe/index.ts';
import { vtepProblem } from './probe/own.ts';
import { sizeProbes } from './probe-mtu.ts';
import { answerPunted } from './punted.ts';
import { answerQueries } from './queries.ts';
import { Reconciler } from './reconcile.ts';
import { startResolver } from './resolver.ts';
import { agentService, serveAgent } from './service.ts';
import { ServiceSide } from './services/index.ts';
import { SessionMesh } from './session/mesh.ts';
import { shapeUnderlay } from './shaping/start.ts';
import { TcDriver } from './shaping/tc.ts';
import { tracing } from './trace/index.ts';
import { Versions } from './versions.ts';
import { ViewStore } from './viewstore.ts';

/** Between audits that read everything anew. */
const AUDIT_MS = 10_000;

export async function startAgent(config: AgentConfig, log: Log): Promise<Scope> {
  const scope = new Scope({ onError: (name, error) => log.warn({ err: error, part: name }, 'not stopped cleanly') });
  try {
    await assemble(config, log, scope);
    return scope;
  } catch (error) {
    await scope.close();
    throw error;
  }
}

async function assemble(config: AgentConfig, log: Log, scope: Scope): Promise<void> {
  for (const dir of [config.stateDir, config.runDir]) await mkdir(dir, { recursive: true, mode: 0o700 });
  const tls = await readTls(config.tls);
  const id = hostIdOf(tls.cert, config.tls.cert);
  const journal = new FileJournal({ path: `${config.stateDir}/journal`, log });
  await journal.start();
  await assignTransit(journal);
  scope.defer('journal', () => journal.close());
  const views = new ViewStore(`${config.stateDir}/view.json`, log);
  scope.defer('view', () => views.flush());
  const fromDisk = await views.load();

  const db = new Ovsdb({ path: config.ovs.db });
  db.start();
  scope.defer('ovsdb', () => db.close());
  const openflow = new OpenFlowClient({ path: `${config.ovs.rundir}/${BRIDGE}.mgmt` });
  openflow.start();
  scope.defer('openflow', () => openflow.close());
  const ovs = new OvsDriver(db);
  const flows = new FlowDriver(openflow);
  const bpf = kernelDriver(config.bpfDir, await probedSide(config));
  scope.defer('kernel side', () => bpf.close());
  const { wiring, probes } = await probeHost(config, {
    bpf: () => problemOf(bpf.start()),
    tso: () => userspaceTso(db, ovs),
    checksums: () =>
      probeChecksums({
        ovs,
        rundir: config.ovs.rundir,
        version: () => ovsRun(config.ovs.rundir),
        file: `${config.stateDir}/probe.json`,
        log,
      }),
    log,
  });
  const links = new LinkDriver({ complete: wiring.complete, devices: () => devicesOf(journal), log });
  const neighbours = new Neighbours({
    own: wiring.vtep,
    teach: wiring.datapathType === 'netdev' && wiring.backend === 'ovs-tunnel' ? teacher(config.ovs.rundir) : null,
    onMissing: (missing) => {
      mesh.reportConflicts('peers', unreachable(config.name, mesh.view(), missing));
      services.missing(missing.keys());
    },
    log,
  });
  await neighbours.start();
  scope.defer('neighbours', () => neighbours.close());
  openflow.onUp(() => neighbours.relearn());

  const abilities = new Abilities({ hostName: config.name, wiring, probes, journal, ovs });
  let record = await hostRecord({ id, name: config.name, wiring, probes, versions: {} });
  const ownProblem = (message: string): Conflict[] =>
    message === '' ? [] : [{ host: config.name, network: '', message }];
  /** Interfaces come and go. */
  const lookAtUplinks = async (): Promise<void> => {
    const uplinks = await abilities.uplinks();
    const problem = vtepProblem(config.underlay, wiring.vtep, uplinks.interfaces);
    mesh.reportConflicts('underlay', ownProblem(problem));
    const found = { capabilities: capabilitiesOf(wiring, uplinks.names), probes: [...probes, ...uplinks.probes] };
    if (isDeepStrictEqual(found, { capabilities: record.capabilities, probes: record.probes })) return;
    record = { ...record, ...found };
    mesh.hostChanged();
  };

  const drifted = (drift: Drift, detectedAt: number, healedAt: number | null, again = false): void => {
    if (!again) metrics.drift(drift.kind);
    log.warn({ ...drift, healed: healedAt !== null }, 'drift');
    mesh.event(driftEvent(config.name, drift, detectedAt, healedAt));
  };

  const multicast = new MulticastSide({
    switchPath: `${config.ovs.rundir}/${BRIDGE}.mgmt`,
    file: `${config.stateDir}/multicast.json`,
    journal,
    mesh: () => mesh,
    datapath: () => reconciler,
    log,
  });
  const services = new ServiceSide({
    journal,
    mesh: () => mesh,
    datapath: () => reconciler,
    onPublished: () => gateway.kick(),
    probes,
    // Where the kernel's datapath forwards it cannot answer for the gateway (docs/ipv6.md).
    ipv6: hasIpv6() && wiring.datapathType !== 'system',
    sees: () => openflow.connected,
    clock: realClock(),
    log,
  });
  const policies = new PolicySide({
    host: config.name,
    journal,
    mesh: () => mesh,
    datapath: () => reconciler,
    flows,
    rundir: config.ovs.rundir,
    file: `${config.stateDir}/names.json`,
    clock: realClock(),
    log,
  });
  const whole = { bridge: BRIDGE, hostId: id, wiring, gateway: true, gateway6: hasIpv6(), gone: isNamespaceGone };
  await policies.names.load();
  scope.defer('names', () => policies.names.close());
  const reconciler: Reconciler = new Reconciler({
    journal,
    view: () => mesh.view(),
    mayRemove: () => mesh.complete,
    links,
    queues: new TcDriver(),
    ovs,
    flows,
    carries: (networkId) => abilities.carries(networkId),
    kernel: wiring.backend === 'kernel-tunnel' || wiring.services ? new Kernel(bpf, wiring) : null,
    switch: openflow,
    snooped: () => multicast.state(),
    services: () => services.services(),
    desire: { ...whole, names: policies.names },
    heal: config.heal,
    onDrift: drifted,
    onPorts: () => mesh.recordsChanged(),
    onCutOff: (messages) => mesh.reportConflicts('links', messages.flatMap(ownProblem)),
    clock: systemClock,
    log,
  });
  const apply = async (view: View): Promise<string> => {
    const [failure, networks] = await Promise.all([
      reconciler.settled(),
      docker.networksApplied().then(
        () => '',
        (error: unknown) => WeftError.from(error).message,
      ),
      routes.settled(),
      // Who is no host of the mesh may be away for good: nobody waits for it.
      neighbours.resolve(vtepsOf(view, { held: true }).keys(), externalsOf(view).keys()),
    ]);
    return failure === '' ? networks : failure;
  };
  const audit = async (heal: boolean): Promise<Drift[]> => {
    const parts = await Promise.all([
      reconciler.audit(heal),
      docker.networksAudit(),
      gateway.audit(heal),
      shaper.audit(heal),
    ]);
    return parts.flat();
  };
  const gateway = new GatewayHost({
    journal,
    vteps: () => vtepsOf(mesh.view()).keys(),
    published: () => services.services().published.publications,
    onDrift: drifted,
    onProblem: (message) => mesh.reportConflicts('gateway', ownProblem(message)),
    now: () => systemClock.now(),
    log,
  });
  const shaper = shapeUnderlay(config, wiring, {
    onDrift: drifted,
    onProblem: (message) => mesh.reportConflicts('underlay queue', ownProblem(message)),
    log,
  });
  const mesh: SessionMesh = new SessionMesh({
    coordinators: config.coordinators,
    connect: (address) => new SessionClient(address, channelCredentials(tls), channelOptions({ session: true })),
    host: () => record,
    journal,
    view: fromDisk,
    apply,
    leads: services.leads,
    ofport: (endpointId) => reconciler.ofport(endpointId) ?? 0,
    unhealthy: (endpoint) => services.unhealthy(endpoint),
    onQuery: answerQueries({
      grant: (networkId, ip, forHost) => addresses.grant(networkId, ip, forHost),
      reserve: (networkId, ip, name, forHost) => addresses.reserve(networkId, ip, name, forHost),
      giveBack: (networkId, cidr, last) => addresses.giveBack(networkId, cidr, last),
      audit: (heal) => audit(heal && config.heal),
      findContainer: (name) => docker.findContainer(name),
      connect: (networkId, container, address) => docker.connect(networkId, container, address),
      disconnect: (networkId, container, force) => docker.disconnect(networkId, container, force),
      flush: () => mesh.flushed(),
      ...sizeProbes(wiring, scope),
      trace: (query) => traces.query(query),
    }),
    onSaved: (view) => views.save(view),
    random: Math.random,
    log,
  });
  const routes = new ContainerRoutes({ journal, mesh: () => mesh, hostName: config.name, log });
  const traces = tracing({ journal, mesh: () => mesh, reconciler, ovs, bpf, wiring, policies, config });
  const addresses = new AddressBook({ journal, mesh, clock: systemClock, log });
  const metrics = agentMetrics({
    staged: () => policies.counts(),
    mesh,
    journal,
    reconciler,
    packets: () => multicast.packets.counters,
    services: () => services.counts,
    kernelSide: wiring.backend === 'kernel-tunnel' || wiring.services ? () => bpf.counters() : null,
    listen: config.metrics,
  });
  const docker = new DockerSide({
    journal,
    mesh,
    datapath: reconciler,
    addresses,
    ledOut: () => gateway.settled(),
    servicePorts: () => gateway.servicePorts,
    config: {
      dockerSocket: config.dockerSocket,
      pluginSocket: config.pluginSocket,
      env: process.env,
      pid: process.pid,
      heal: config.heal,
      onCall: (method, ms) => metrics.pluginCall(method, ms),
      onDrift: drifted,
      onConnected: () => {
        versions.look('docker');
        gateway.look(); // its rules come with it
      },
    },
    log,
  });
  const attachments = new Attachments({
    journal,
    mesh,
    datapath: reconciler,
    settled: () => reconciler.settled(),
    addresses,
    waiter: new JoinWaiter({ journal, mesh, addresses, clock: systemClock, log }),
    places: placesOf(() => ovs.observe()),
    clock: systemClock,
    log,
  });
  const absence = new AbsenceWatch({
    journal,
    mesh,
    hasLink: (name) => reconciler.hasLink(name),
    detach: (endpoint) => attachments.remove(endpoint),
    kick: () => reconciler.kick(),
    clock: systemClock,
    log,
  });
  const versions = new Versions({
    read: {
      ovs: () => ovsVersion(config.ovs.rundir),
      docker: async () => (await docker.api.version()).version,
    },
    changed: (known) => {
      record = { ...record, versions: { ...record.versions, ...known } };
      mesh.hostChanged();
    },
    log,
  });
  scope.defer('versions', () => versions.close());
  // The database server and ovs-vswitchd are started apart.
  db.onUp(() => versions.look('ovs'));
  db.onUp(() => void sweepProbe(ovs).catch(() => undefined)); // the next start, or connection, tries again
  db.onUp(() => void lookAtUplinks().catch(() => undefined)); // looked at again with the next audit
  openflow.onUp(() => versions.look('ovs'));

  // Docker may be waiting: what is on disk is enough to answer it.
  await docker.start();
  scope.defer('docker', () => docker.close());
  answerPunted(multicast.packets, { journal, ofport: (id) => reconciler.ofport(id), staged: policies.staged });
  await multicast.start();
  scope.defer('multicast', () => multicast.close());
  services.start();
  scope.defer('services', () => services.close());
  reconciler.start();
  scope.defer('reconciler', () => reconciler.close());
  gateway.start();
  routes.start();
  scope.defer('routes', () => routes.close());
  mesh.onView(() => gateway.kick()); // VTEPs
  scope.defer('gateway', () => gateway.close());
  void reconciler.settled().then(() => gateway.look()); // its link is there now
  void shaper.start();
  scope.defer('underlay queue', () => shaper.close());
  addresses.start();
  scope.defer('addresses', () => addresses.close());
  // Otherwise the session's hello would give up what running containers use.
  if (journal.fresh) await docker.recover();
  mesh.start();
  scope.defer('session', () => mesh.close());
  const service = agentService({
    host: () => record,
    mesh,
    journal,
    reconciler,
    attachments,
    audit: (heal) => audit(heal && config.heal),
    flowText: async () => (await flows.observe()).map(formatFlow).join('\n'),
    mapText: () => describeMaps(bpf.observe() ?? new Map()),
    trace: (request) => traces.local(request),
    log,
  });
  scope.defer('service', await serveAgent(config.agentSocket, service));
  const resolver = startResolver({
    journal,
    mesh,
    vtep: wiring.vtep,
    resolvConf: config.resolvConf,
    health: services,
    learn: (...answer) => policies.names.learn(...answer),
    counters: metrics.dns,
    random: Math.random,
    clock: realClock(),
    log,
  });
  scope.defer('resolver', () => resolver.close());
  absence.start();
  scope.defer('attachments', () => absence.close());
  await metrics.start();
  scope.defer('metrics', () => metrics.close());
  scope.background(
    'audits',
    (signal) => every(AUDIT_MS, signal, () => Promise.all([audit(config.heal), lookAtUplinks()])),
    (error) => log.error({ err: error }, 'audits ended'),
  );
  log.info({ host: config.name, id, ...wiring }, 'agent started');
}
