// Preloaded into peers on Node: what names no address listens on loopback, and no name but localhost is looked up.
// Nothing of this is on the path of a call.
"use strict";
const dns = require("node:dns");
const net = require("node:net");

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  return typeof port === "number" && typeof rest[0] !== "string"
    ? listen.call(this, port, "127.0.0.1", ...rest)
    : listen.call(this, port, ...rest);
};

const lookup = dns.lookup;
dns.lookup = (name, ...rest) =>
  name === "localhost" || net.isIP(name)
    ? lookup(name, ...rest)
    : process.nextTick(rest.at(-1), Object.assign(new Error(`no network for ${name}`), { code: "ENOTFOUND" }));
