// A legacy MCP server that adds two numbers.
import { answered } from "./answers.ts";

const decoder = new TextDecoder();
let rest = "";
for await (const chunk of Deno.stdin.readable) {
  const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
  rest = lines.pop() ?? "";
  for (const line of lines) {
    const answer = answered(line, Deno.version.deno);
    if (answer !== null) console.log(answer);
  }
}
