// Runs inside of Thunderbird, as the body of a function: sets the account up if there is none yet, and
// gets new mail.
const [told, done] = arguments;
const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");

function account() {
  const found = MailServices.accounts.allServers.find(server => server.type == "pop3");
  if (found) {
    return found;
  }
  const database = Cc["@mozilla.org/security/x509certdb;1"].getService(Ci.nsIX509CertDB);
  database.addCertFromBase64(told.ca, "C,,");
  const server = MailServices.accounts.createIncomingServer(told.user, "localhost", "pop3");
  server.port = told.port;
  server.socketType = told.implicit ? Ci.nsMsgSocketType.SSL : Ci.nsMsgSocketType.alwaysSTARTTLS;
  server.authMethod = Ci.nsMsgAuthMethod[told.method];
  server.QueryInterface(Ci.nsIPop3IncomingServer).leaveMessagesOnServer = told.keep;
  const account = MailServices.accounts.createAccount();
  account.addIdentity(MailServices.accounts.createIdentity());
  account.incomingServer = server;
  return server;
}

function getNewMail(server, password) {
  server.password = password;
  return new Promise(resolve => {
    const listener = {
      QueryInterface: ChromeUtils.generateQI(["nsIUrlListener"]),
      OnStartRunningUrl() {},
      OnStopRunningUrl(url, status) {
        resolve(status);
      },
    };
    const inbox = server.rootMsgFolder.getFolderWithFlags(Ci.nsMsgFolderFlags.Inbox);
    MailServices.pop3.GetNewMail(null, listener, inbox, server);
  });
}

const server = account();
if (told.mistyped) {
  // Somebody sits in front of it who, told that the password is wrong, puts it right and tries again.
  const { Pop3Authenticator } = ChromeUtils.importESModule("resource:///modules/MailAuthenticator.sys.mjs");
  Pop3Authenticator.prototype.promptAuthFailed = function () {
    server.password = told.password;
    return 0; // "Retry"
  };
}
getNewMail(server, told.mistyped || told.password).then(status => done(status), error => done(String(error)));
