const fs = require('fs');
const path = require('path');
const { promisify } = require('util');
const { Client } = require('yapople');

const told = process.env;
const client = new Client({
  host: 'localhost',
  port: Number(told.POP_PORT),
  tls: true,
  options: { servername: 'localhost' },
  username: told.POP_USER,
  password: told.POP_PASSWORD,
});
const ask = Object.fromEntries(
  ['connect', 'count', 'retr', 'dele', 'quit'].map(name => [name, promisify(client[name]).bind(client)])
);

(async () => {
  await ask.connect();
  const count = await ask.count();
  for (let number = 1; number <= count; number++) {
    fs.writeFileSync(path.join(told.POP_INBOX, String(number)), await ask.retr(number));
    if (!told.POP_KEEP) {
      await ask.dele(number);
    }
  }
  await ask.quit();
})().catch(error => {
  console.error(error);
  process.exit(1);
});
