import { McpServer } from "@modelcontextprotocol/server";
import { serveStdio } from "@modelcontextprotocol/server/stdio";
import { z } from "zod";

const terms = z.object({ a: z.number(), b: z.number() });

serveStdio(() => {
  const server = new McpServer({ name: "adder", version: "1.0.0" });
  const about = { description: "Add two whole numbers", inputSchema: terms };
  server.registerTool("add", about, ({ a, b }: z.infer<typeof terms>) => ({
    content: [{ type: "text", text: String(a + b) }],
  }));
  return server;
});
