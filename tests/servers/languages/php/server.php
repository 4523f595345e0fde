<?php
// A legacy MCP server that adds two numbers.

const ADD = [
    'name' => 'add',
    'description' => 'Add two whole numbers',
    'inputSchema' => [
        'type' => 'object',
        'properties' => ['a' => ['type' => 'integer'], 'b' => ['type' => 'integer']],
    ],
];

function answer(string $method, array $params): array|object|null
{
    return match ($method) {
        'initialize' => [
            'protocolVersion' => '2025-11-25',
            'capabilities' => ['tools' => new stdClass()],
            'serverInfo' => ['name' => 'adder', 'version' => PHP_VERSION],
        ],
        'ping' => new stdClass(),
        'tools/list' => ['tools' => [ADD]],
        'tools/call' => ['content' => [[
            'type' => 'text',
            'text' => (string) ($params['arguments']['a'] + $params['arguments']['b']),
        ]]],
        default => null,
    };
}

while (($line = fgets(STDIN)) !== false) {
    $request = json_decode($line, true);
    if (!isset($request['id'], $request['method'])) {
        continue;
    }
    $result = answer($request['method'], $request['params'] ?? []);
    $outcome = $result === null
        ? ['error' => ['code' => -32601, 'message' => 'Method not found']]
        : ['result' => $result];
    fwrite(STDOUT, json_encode(['jsonrpc' => '2.0', 'id' => $request['id']] + $outcome) . "\n");
}
