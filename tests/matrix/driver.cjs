// Runs every feature of the bridge matrix with one of the official TypeScript clients: `node driver.cjs PLAN`.
//
// PLAN is JSON: {packages, kind, era, url, cut_url, token, key, features, tool, arguments}. For each feature one line of JSON is printed,
// {feature, outcome} or {feature, error}; what the outcomes must be is said in outcomes.py.
"use strict";

const { createRequire } = require("node:module");

const plan = JSON.parse(process.argv[2]);
const packaged = createRequire(`${plan.packages}/package.json`);
const MODERN = plan.era === "modern";
/** The SDK's second generation, which knows both eras and is of the legacy one unless told otherwise. */
const SECOND = plan.kind !== "typescript-legacy";
const FEATURE_LIMIT_MS = 60_000;
const RECONNECT_MS = 200;
const CAPABILITIES = { elicitation: { form: {}, url: {} }, roots: { listChanged: true }, sampling: {} };
const WATCHED = "test://watched-resource";

/** Both generations of the SDK, under the same names. */
function sdk() {
  if (SECOND) {
    return { ...packaged("@modelcontextprotocol/client"), named: (method) => method };
  }
  const types = packaged("@modelcontextprotocol/sdk/types.js");
  const schemas = {
    "elicitation/create": types.ElicitRequestSchema,
    "roots/list": types.ListRootsRequestSchema,
    "sampling/createMessage": types.CreateMessageRequestSchema,
    "notifications/message": types.LoggingMessageNotificationSchema,
    "notifications/resources/updated": types.ResourceUpdatedNotificationSchema,
    "notifications/tools/list_changed": types.ToolListChangedNotificationSchema,
  };
  return {
    ...packaged("@modelcontextprotocol/sdk/client/index.js"),
    ...packaged("@modelcontextprotocol/sdk/client/streamableHttp.js"),
    named: (method) => schemas[method],
  };
}

const { Client, StreamableHTTPClientTransport, named } = sdk();

/** A client, and all that it was asked and told. */
class Peer {
  asked = [];
  logged = [];
  updated = [];
  listChanges = 0;
  #waiting = [];

  async connect(url) {
    const options = { capabilities: CAPABILITIES };
    if (MODERN) options.versionNegotiation = { mode: "auto" };
    this.client = new Client({ name: "matrix", version: "1" }, options);
    this.#answer();
    this.#listen();
    const reconnectionOptions = {
      initialReconnectionDelay: RECONNECT_MS,
      maxReconnectionDelay: RECONNECT_MS,
      reconnectionDelayGrowFactor: 1,
      maxRetries: 10,
    };
    const requestInit = { headers: { Authorization: `Bearer ${plan.token}` } };
    this.transport = new StreamableHTTPClientTransport(new URL(url), { requestInit, reconnectionOptions });
    await this.client.connect(this.transport);
    return this;
  }

  async close() {
    if (!MODERN) await this.transport.terminateSession();
    await this.client.close();
  }

  #answer() {
    this.client.setRequestHandler(named("elicitation/create"), ({ params }) => {
      this.asked.push(params.message);
      if (params.message.startsWith("Decline")) return { action: "decline" };
      const all = { name: "Ada", color: "green", username: "ada", email: "ada@localhost" };
      const wanted = Object.keys(params.requestedSchema.properties);
      return { action: "accept", content: Object.fromEntries(wanted.map((field) => [field, all[field]])) };
    });
    this.client.setRequestHandler(named("sampling/createMessage"), ({ params }) => {
      const prompt = [params.messages[0].content].flat()[0].text;
      this.asked.push(prompt);
      return { model: "test", role: "assistant", content: { type: "text", text: `an answer to ${prompt}` } };
    });
    this.client.setRequestHandler(named("roots/list"), () => ({ roots: [{ uri: `file:///${plan.key}` }] }));
  }

  #listen() {
    const note = (method, take) =>
      this.client.setNotificationHandler(named(method), ({ params }) => {
        take(params);
        for (const look of this.#waiting.splice(0)) look();
      });
    note("notifications/message", ({ level, data }) => this.logged.push([level, data]));
    note("notifications/resources/updated", ({ uri }) => this.updated.push(uri));
    note("notifications/tools/list_changed", () => (this.listChanges += 1));
  }

  /** Resolves once what was told makes it true. */
  async until(condition) {
    while (!condition()) await new Promise((resolve) => this.#waiting.push(resolve));
  }

  async call(name, args = {}, { meta, ...options } = {}) {
    const params = { name, arguments: args, ...(meta && { _meta: meta }) };
    const result = await (SECOND ? this.client.callTool(params, options) : this.client.callTool(params, undefined, options));
    return result.content[0].text;
  }

  async tools() {
    const { tools } = await this.client.listTools();
    return tools.map((tool) => tool.name);
  }
}

const features = {
  async introduction({ client, transport }) {
    return {
      version: SECOND ? client.getNegotiatedProtocolVersion() : transport.protocolVersion,
      server: client.getServerVersion().name,
    };
  },

  async plain(peer) {
    const { client } = peer;
    const read = await client.readResource({ uri: "test://static-text" });
    const got = await client.getPrompt({ name: "test_prompt_with_arguments", arguments: { arg1: "one", arg2: "two" } });
    const ref = { type: "ref/prompt", name: "test_prompt_with_arguments" };
    const { completion } = await client.complete({ ref, argument: { name: "arg1", value: "par" } });
    return {
      first_tool: (await peer.tools())[0],
      text: await peer.call("test_simple_text"),
      failure: await peer.call("test_error_handling"),
      resources: (await client.listResources()).resources.map(({ uri }) => uri),
      resource: read.contents[0].text,
      templates: (await client.listResourceTemplates()).resourceTemplates.map(({ uriTemplate }) => uriTemplate),
      first_prompt: (await client.listPrompts()).prompts[0].name,
      prompt: got.messages[0].content.text,
      completion: completion.values,
    };
  },

  async progress(peer) {
    const progress = [];
    const onprogress = (step) => progress.push([step.progress, step.total, step.message]);
    return { text: await peer.call("count_up", { steps: 3 }, { onprogress }), progress };
  },

  async log(peer) {
    if (!MODERN) await peer.client.setLoggingLevel("debug");
    await peer.call("test_tool_with_logging", {}, MODERN ? { meta: { "io.modelcontextprotocol/logLevel": "debug" } } : {});
    await peer.until(() => peer.logged.length >= 3);
    const loud = peer.logged.splice(0);
    if (!MODERN) await peer.client.setLoggingLevel("error");
    await peer.call("test_tool_with_logging");
    return { loud, quiet: peer.logged };
  },

  async cancel(peer) {
    const abort = new AbortController();
    const call = peer.call("wait_to_be_cancelled", { key: plan.key }, { onprogress: () => abort.abort(), signal: abort.signal });
    const ended = await call.then(() => "it answered", () => "it was given up");
    return { ended, seen: await peer.call("was_cancelled", { key: plan.key }) };
  },

  async elicitation(peer) {
    const accepted = await peer.call("test_elicitation", { message: `Who is ${plan.key}?` });
    const declined = await peer.call("test_elicitation", { message: `Decline ${plan.key}` });
    return { accepted, declined, asked: peer.asked };
  },

  async sampling(peer) {
    return { text: await peer.call("test_sampling", { prompt: plan.key }), asked: peer.asked };
  },

  async roots(peer) {
    return { text: await peer.call("test_input_required_result_list_roots") };
  },

  async rounds(peer) {
    const two = await peer.call("test_input_required_result_multi_round");
    const asked = peer.asked.splice(0);
    return { two, asked, at_once: await peer.call("test_input_required_result_multiple_inputs") };
  },

  async subscription(peer) {
    const listening = MODERN
      ? await peer.client.listen({ toolsListChanged: true, resourceSubscriptions: [WATCHED] })
      : await peer.client.subscribeResource({ uri: WATCHED });
    await peer.call("test_trigger_resource_update", { uri: WATCHED });
    await peer.call("test_trigger_resource_update", { uri: "test://static-text" });
    await peer.until(() => peer.updated.length >= 1);
    await peer.call("test_trigger_tool_change");
    await peer.until(() => peer.listChanges >= 1);
    const added = (await peer.tools()).includes("not_always_there");
    await peer.call("test_trigger_tool_change");
    await peer.until(() => peer.listChanges >= 2);
    const removed = !(await peer.tools()).includes("not_always_there");
    const before = peer.updated.splice(0);
    await (MODERN ? listening.close() : peer.client.unsubscribeResource({ uri: WATCHED }));
    await peer.call("test_trigger_resource_update", { uri: WATCHED });
    await peer.call("test_simple_text");
    return { added, removed, updated: before, updated_after: peer.updated, list_changes: peer.listChanges };
  },

  /** With a server of which nothing else is known. */
  async one_call(peer) {
    return { tools: await peer.tools(), text: await peer.call(plan.tool, plan.arguments) };
  },

  /** On connections that are cut. */
  async resume(peer) {
    const through = await new Peer().connect(plan.cut_url);
    const progress = [];
    const onprogress = (step) => progress.push(step.progress);
    if (MODERN) {
      // This SDK lets such a call run into its own time limit; so nobody waits for it.
      const key = `${plan.key}-cut`;
      const reported = new Promise((resolve) => {
        const tell = (step) => resolve(onprogress(step));
        through.call("wait_to_be_cancelled", { key }, { onprogress: tell }).catch(() => {});
      });
      await reported;
      const seen = await peer.call("was_cancelled", { key });
      await through.close();
      return { seen, progress };
    }
    await through.call("count_up", { steps: 20 }, { onprogress });
    const text = await through.call("count_up", { steps: 3 }, { onprogress });
    const answer = await through.call("think_and_ask", { message: `Are you ${plan.key}?` }, { onprogress });
    await through.client.subscribeResource({ uri: WATCHED });
    await through.call("test_trigger_resource_update", { uri: WATCHED });
    await through.until(() => through.updated.length >= 1);
    await through.close();
    return { text, progress, answer, asked: through.asked, updated: through.updated };
  },
};

async function limited(work) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error("not in time")), FEATURE_LIMIT_MS)));
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function main() {
  const peer = await limited(new Peer().connect(plan.url));
  for (const feature of plan.features) {
    try {
      peer.asked = [];
      peer.logged = [];
      const outcome = await limited(features[feature](peer));
      console.log(JSON.stringify({ feature, outcome }));
    } catch (error) {
      console.log(JSON.stringify({ feature, error: String(error) }));
    }
  }
  await limited(peer.close());
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
