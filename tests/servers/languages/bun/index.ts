// A legacy MCP server that adds two numbers.
import { answered } from "./answers.ts";

for await (const line of console) {
  const answer = line === "" ? null : answered(line, Bun.version); // the last one is empty
  if (answer !== null) console.log(answer);
}
