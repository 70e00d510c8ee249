import jakarta.mail.*;
import java.io.*;
import java.nio.file.*;
import java.security.KeyStore;
import java.security.cert.*;
import java.util.*;
import javax.net.ssl.*;

public class JakartaMail {
    public static void main(String[] arguments) throws Exception {
        Map<String, String> told = System.getenv();
        boolean implicit = told.get("POP_WAY").equals("tls");
        String protocol = implicit ? "pop3s" : "pop3";
        String mechanism = told.get("POP_MECHANISM");

        Properties properties = new Properties();
        String prefix = "mail." + protocol + ".";
        properties.put(prefix + "timeout", "20000");
        properties.put(prefix + "ssl.socketFactory", trusting(told.get("POP_CA")));
        properties.put(prefix + "ssl.checkserveridentity", "true");
        if (!implicit) {
            properties.put(prefix + "starttls.enable", "true");
            properties.put(prefix + "starttls.required", "true");
        }
        if (mechanism.equals("APOP")) {
            properties.put(prefix + "apop.enable", "true");
        } else if (mechanism.equals("PLAIN") || mechanism.equals("LOGIN")) {
            properties.put(prefix + "auth.mechanisms", mechanism);
        }

        Store store = Session.getInstance(properties).getStore(protocol);
        int port = Integer.parseInt(told.get("POP_PORT"));
        store.connect("localhost", port, told.get("POP_USER"), told.get("POP_PASSWORD"));
        Folder folder = store.getFolder("INBOX");
        folder.open(Folder.READ_WRITE);
        for (Message message : folder.getMessages()) {
            String uid = ((com.sun.mail.pop3.POP3Folder) folder).getUID(message);
            try (OutputStream file = Files.newOutputStream(Path.of(told.get("POP_INBOX"), uid))) {
                message.writeTo(file);
            }
            if (told.get("POP_KEEP").isEmpty()) message.setFlag(Flags.Flag.DELETED, true);
        }
        folder.close(true);
        store.close();
    }

    private static SSLSocketFactory trusting(String path) throws Exception {
        KeyStore keys = KeyStore.getInstance(KeyStore.getDefaultType());
        keys.load(null, null);
        try (InputStream file = new FileInputStream(path)) {
            keys.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        TrustManagerFactory managers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        managers.init(keys);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, managers.getTrustManagers(), null);
        return context.getSocketFactory();
    }
}
