const fs = require('fs');
const path = require('path');
const Pop3Command = require('node-pop3');

const told = process.env;
const pop = new Pop3Command({
  user: told.POP_USER,
  password: told.POP_PASSWORD,
  host: 'localhost',
  port: Number(told.POP_PORT),
  tls: true,
  timeout: 20000,
});

(async () => {
  for (const [number, uid] of await pop.UIDL()) {
    const [, stream] = await pop.command('RETR', number);
    const chunks = [];
    for await (const chunk of stream) {
      chunks.push(chunk);
    }
    fs.writeFileSync(path.join(told.POP_INBOX, uid), Buffer.concat(chunks));
    if (!told.POP_KEEP) {
      await pop.command('DELE', number);
    }
  }
  await pop.QUIT();
})().catch(error => {
  console.error(error);
  process.exit(1);
});
