// Enrols and re-enrols with BouncyCastle's EST client (org.bouncycastle.est), which knows nothing of keybroker.
//
//   java -cp /usr/share/java/bcprov.jar:/usr/share/java/bcpkix.jar:/usr/share/java/bcutil.jar BouncyCastleEst.java \
//       HOST:PORT LABEL ROOT.pem CERT.pem KEY.pem OUT [serverkeygen]
//
// LABEL is a profile, or - for none. CERT and KEY (PKCS#8) are the initial credential. Writes OUT/first.cert.pem and
// OUT/second.cert.pem: the second follows the first, with a new key and the names of the first. With serverkeygen it has the
// server make the key, and writes OUT/first.cert.pem and OUT/first.key.pem.

import java.io.FileReader;
import java.io.FileWriter;
import java.net.Socket;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.Security;
import java.security.cert.X509Certificate;
import java.security.spec.ECGenParameterSpec;
import java.util.Set;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import org.bouncycastle.asn1.pkcs.PKCSObjectIdentifiers;
import org.bouncycastle.asn1.pkcs.PrivateKeyInfo;
import org.bouncycastle.asn1.x500.X500Name;
import org.bouncycastle.asn1.x509.Extension;
import org.bouncycastle.asn1.x509.ExtensionsGenerator;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.jcajce.JcaX509CertificateConverter;
import org.bouncycastle.est.CACertsResponse;
import org.bouncycastle.est.CSRRequestResponse;
import org.bouncycastle.est.ESTService;
import org.bouncycastle.est.EnrollmentResponse;
import org.bouncycastle.est.jcajce.JcaJceUtils;
import org.bouncycastle.est.jcajce.JsseESTServiceBuilder;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.openssl.PEMParser;
import org.bouncycastle.openssl.jcajce.JcaPEMKeyConverter;
import org.bouncycastle.openssl.jcajce.JcaPEMWriter;
import org.bouncycastle.operator.jcajce.JcaContentSignerBuilder;
import org.bouncycastle.pkcs.PKCS10CertificationRequest;
import org.bouncycastle.pkcs.jcajce.JcaPKCS10CertificationRequestBuilder;
import org.bouncycastle.util.io.pem.PemObject;

public class BouncyCastleEst {
    public static void main(String[] args) throws Exception {
        Security.addProvider(new BouncyCastleProvider());
        String server = args[0], label = args[1], out = args[5];
        X509Certificate root = certificate(args[2]);
        X509Certificate initial = certificate(args[3]);
        PrivateKey initialKey = key(args[4]);

        ESTService anonymous = service(server, label, root, null, null);
        CACertsResponse ca = anonymous.getCACerts();
        System.out.println("CA certificates: " + ca.getCertificateStore().getMatches(null).size());
        CSRRequestResponse attributes = anonymous.getCSRAttributes();
        System.out.println("CSR attributes: "
                + (attributes.hasAttributesResponse() ? attributes.getAttributesResponse().getRequirements() : "none"));

        if (args.length > 6) {
            generate(service(server, label, root, initial, initialKey), out);
            return;
        }
        KeyPair first = pair();
        X509Certificate one = enrol(service(server, label, root, initial, initialKey), false,
                request(first, new X500Name("CN=whoever"), null));
        write(out + "/first.cert.pem", one);
        KeyPair second = pair();
        X509CertificateHolder current = new X509CertificateHolder(one.getEncoded());
        X509Certificate two = enrol(service(server, label, root, one, first.getPrivate()), true,
                request(second, current.getSubject(), current.getExtension(Extension.subjectAlternativeName)));
        write(out + "/second.cert.pem", two);
    }

    static void generate(ESTService service, String out) throws Exception {
        EnrollmentResponse response = service.simpleEnrollWithServersideCreation(
                request(pair(), new X500Name("CN=whoever"), null), null);
        X509CertificateHolder holder = response.getStore().getMatches(null).iterator().next();
        write(out + "/first.cert.pem", new JcaX509CertificateConverter().getCertificate(holder));
        try (JcaPEMWriter writer = new JcaPEMWriter(new FileWriter(out + "/first.key.pem"))) {
            writer.writeObject(new PemObject("PRIVATE KEY", response.getPrivateKeyInfo().getEncoded()));
        }
    }

    static ESTService service(String server, String label, X509Certificate root, X509Certificate own, PrivateKey key)
            throws Exception {
        JsseESTServiceBuilder builder = new JsseESTServiceBuilder(server,
                JcaJceUtils.getCertPathTrustManager(Set.of(new java.security.cert.TrustAnchor(root, null)), null));
        if (!label.equals("-")) {
            builder.withLabel(label);
        }
        if (own != null) {
            KeyStore store = KeyStore.getInstance("PKCS12");
            store.load(null, null);
            store.setKeyEntry("own", key, new char[0], new X509Certificate[] {own});
            KeyManagerFactory factory = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
            factory.init(store, new char[0]);
            builder.withKeyManager(only(factory.getKeyManagers()[0]));
        }
        return builder.build();
    }

    /** Shows the one certificate that there is, whatever issuers the server hints at. */
    static KeyManager only(KeyManager manager) {
        javax.net.ssl.X509ExtendedKeyManager inner = (javax.net.ssl.X509ExtendedKeyManager) manager;
        return new javax.net.ssl.X509ExtendedKeyManager() {
            @Override public String[] getClientAliases(String type, java.security.Principal[] issuers) {
                return inner.getClientAliases(type, null);
            }
            @Override public String chooseClientAlias(String[] types, java.security.Principal[] issuers, Socket s) {
                return inner.chooseClientAlias(types, null, s);
            }
            @Override public String[] getServerAliases(String type, java.security.Principal[] issuers) {
                return null;
            }
            @Override public String chooseServerAlias(String type, java.security.Principal[] issuers, Socket s) {
                return null;
            }
            @Override public X509Certificate[] getCertificateChain(String alias) {
                return inner.getCertificateChain(alias);
            }
            @Override public PrivateKey getPrivateKey(String alias) {
                return inner.getPrivateKey(alias);
            }
        };
    }

    static X509Certificate enrol(ESTService service, boolean again, PKCS10CertificationRequest request)
            throws Exception {
        EnrollmentResponse response = service.simpleEnroll(again, request, null);
        if (!response.isCompleted()) {
            throw new IllegalStateException("not completed");
        }
        X509CertificateHolder holder = response.getStore().getMatches(null).iterator().next();
        return new JcaX509CertificateConverter().getCertificate(holder);
    }

    static PKCS10CertificationRequest request(KeyPair pair, X500Name subject, Extension names) throws Exception {
        JcaPKCS10CertificationRequestBuilder builder =
                new JcaPKCS10CertificationRequestBuilder(subject, pair.getPublic());
        if (names != null) {
            ExtensionsGenerator extensions = new ExtensionsGenerator();
            extensions.addExtension(names);
            builder.addAttribute(PKCSObjectIdentifiers.pkcs_9_at_extensionRequest, extensions.generate());
        }
        return builder.build(new JcaContentSignerBuilder("SHA256withECDSA").build(pair.getPrivate()));
    }

    static KeyPair pair() throws Exception {
        KeyPairGenerator generator = KeyPairGenerator.getInstance("EC");
        generator.initialize(new ECGenParameterSpec("secp256r1"));
        return generator.generateKeyPair();
    }

    static X509Certificate certificate(String file) throws Exception {
        try (PEMParser parser = new PEMParser(new FileReader(file))) {
            return new JcaX509CertificateConverter().getCertificate((X509CertificateHolder) parser.readObject());
        }
    }

    static PrivateKey key(String file) throws Exception {
        try (PEMParser parser = new PEMParser(new FileReader(file))) {
            return new JcaPEMKeyConverter().getPrivateKey((PrivateKeyInfo) parser.readObject());
        }
    }

    static void write(String file, X509Certificate certificate) throws Exception {
        try (JcaPEMWriter writer = new JcaPEMWriter(new FileWriter(file))) {
            writer.writeObject(certificate);
        }
    }
}
