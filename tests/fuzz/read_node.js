// How Node (llhttp) reads bytes. Lines of base64 come in, each a connection's bytes that end with a request for
// /sentinel; for each a line of JSON goes out: [[[method, target, body in hex], …], why it was refused or null].
"use strict";
const http = require("http");
const { Duplex } = require("stream");

const WAIT_MS = 300; // for a request that bytes are missing of: those who read it otherwise are the reason for all this

class Connection extends Duplex {
  constructor(done) {
    super();
    this.reading = [];
    this.done = (refused) => {
      clearTimeout(this.timer);
      this.done = () => {};
      done(JSON.stringify([this.reading, refused]));
      this.destroy();
    };
    this.timer = setTimeout(() => this.done("waits"), WAIT_MS);
  }
  _read() {}
  _write(bytes, encoding, callback) {
    callback();
  }
}

const limits = { maxHeaderSize: 1 << 17, requestTimeout: 0, headersTimeout: 0 };
const server = http.createServer(limits, (request, response) => {
  const pieces = [];
  request.on("error", () => {});
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    request.socket.reading.push([request.method, request.url, Buffer.concat(pieces).toString("hex")]);
    response.end();
    if (request.url === "/sentinel") request.socket.done(null);
  });
});
server.on("clientError", (error, connection) => connection.done(error.code || String(error)));

function read(line) {
  return new Promise((done) => {
    const connection = new Connection(done);
    server.emit("connection", connection);
    connection.push(Buffer.from(line, "base64"));
  });
}

// All of a block at once; answers in the order of the questions.
async function main() {
  const lines = require("fs").readFileSync(0, "latin1").split("\n").filter((line) => line);
  for (let at = 0; at < lines.length; at += 200) {
    const answers = await Promise.all(lines.slice(at, at + 200).map(read));
    process.stdout.write(answers.join("\n") + "\n");
  }
  process.exitCode = 0;
}
main();
