const readline = require('readline');

const rl = readline.createInterface({
  input: process.stdin,
  output: process.stdout
});

rl.on('line', (line) => {
  try {
    const request = JSON.parse(line);
    const response = handleRequest(request);
    console.log(JSON.stringify(response));
  } catch (error) {
    console.log(JSON.stringify({
      error: { code: -32603, message: error.message }
    }));
  }
});

function handleRequest(request) {
  const { method, params } = request;

  if (method === 'tools/list') {
    return {
      result: {
        tools: [
          { name: 'timestamp', description: 'Get current timestamp' }
        ]
      }
    };
  }

  return { error: { code: -32601, message: 'Method not found' } };
}
