//! The shapes of credentials that no one provider gives out: keys, tokens, passwords and their hashes in fixed syntaxes.

use super::check;
use super::{TokenRule, rule};

pub(super) const ROWS: &[TokenRule] = &[
    rule("private-key-pem", "Private key (PEM)", r#"-----BEGIN [A-Z0-9 ]{0,24}PRIVATE KEY(?: BLOCK)?-----[ \t\r\n\\nr"'+,]{0,24}[A-Za-z0-9+/]{30}[A-Za-z0-9+/=\\ \t\r\n"',]{0,}(?:-----END [A-Z0-9 ]{0,15}PRIVATE KEY(?: BLOCK)?-----)?"#, "RFC 7468, RFC 4880, OpenSSH PROTOCOL.key")
        .unless(check::cut_pem)
        .positive(&[
            "-----BEGIN PRIVATE KEY-----\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n-----END PRIVATE KEY-----", // gitleaks:allow
            "-----BEGIN RSA PRIVATE KEY-----\\nMIIEaB3aMIIEaB3aMIIEaB3aMIIEaB3aMIIEaB3aMIIEaB3aMIIEaB3aMIIEaB3a\\ncccccccccccccccc==\\n-----END RSA PRIVATE KEY-----", // gitleaks:allow
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXkb3BlbnNzaC1rZXkb3BlbnNzaC1rZXkb3BlbnNzaC1rZXk", // gitleaks:allow
        ])
        .negative(&["-----BEGIN RSA PRIVATE KEY-----\nMIIEaB3aMIIEaB3aMIIEaB3aMIIEaB3aMIIEaB3aMIIEaB3aMIIEaB3aMIIEaB3a...", "-----BEGIN PUBLIC KEY-----\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n-----END PUBLIC KEY-----", "-----BEGIN PRIVATE KEY-----\nthe key stands here\n-----END PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\" + key"]),
    rule("private-key-pem-short", "Private key (PEM)", r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=\t\r\n\\]{20,}-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----", "RFC 7468; lines of any length")
        .positive(&[
            "-----BEGIN EC PRIVATE KEY-----\nAAAA\nBBBBBBBB\nCCCCCC==\n-----END EC PRIVATE KEY-----", // gitleaks:allow
        ])
        .negative(&["-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----", "-----BEGIN EC PRIVATE KEY-----\n...\n-----END EC PRIVATE KEY-----"]),
    rule("private-key-pem-encrypted", "Encrypted private key (PEM)", r#"-----BEGIN [A-Z0-9 ]{0,15}PRIVATE KEY-----[ \t\r\n\\nr"'+,]{0,24}Proc-Type: ?4,ENCRYPTED[ \t\r\n\\nr"'+,]{1,40}DEK-Info: ?[A-Z0-9-]{3,24},[A-Fa-f0-9]{8,64}[A-Za-z0-9+/=\\ \t\r\n"',]{0,}(?:-----END [A-Z0-9 ]{0,15}PRIVATE KEY(?: BLOCK)?-----)?"#, "RFC 1421, Encapsulated header fields")
        .positive(&[
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00000000000000000000000000000000\n\naaaa\nbbbbbb\n-----END RSA PRIVATE KEY-----", // gitleaks:allow
        ])
        .negative(&["-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n", "-----BEGIN CERTIFICATE-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00000000000000000000000000000000"]),
    rule("private-key-pgp", "PGP private key", r#"-----BEGIN PGP PRIVATE KEY BLOCK-----[ \t\r\n\\nr"'+,]{0,24}(?:Version|Comment): [A-Za-z0-9 ./():,+@_-]{1,80}[ \t\r\n\\nr"'+,]{1,20}[A-Za-z0-9+/]{20}[A-Za-z0-9+/=\\ \t\r\n"',]{0,}(?:-----END PGP PRIVATE KEY BLOCK-----)?"#, "RFC 4880, ASCII armor")
        .positive(&[
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG v2\n\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n=AAAA\n-----END PGP PRIVATE KEY BLOCK-----", // gitleaks:allow
        ])
        .negative(&["-----BEGIN PGP PUBLIC KEY BLOCK-----\nVersion: GnuPG v2\n\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG v2\n\n..."]),
    rule("private-key-ssh2", "SSH2 private key", r#"---- BEGIN SSH2 [A-Z ]{0,12}PRIVATE KEY ----[A-Za-z0-9+/=\\ \t\r\n"',:;.()@_-]{40,}"#, "RFC 4716 and SSH Tectia, private key format")
        .positive(&[
            "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nComment: \"key\"\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["---- BEGIN SSH2 PUBLIC KEY ----\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "---- BEGIN SSH2 PRIVATE KEY ----"]),
    rule("private-key-putty", "PuTTY private key", r"PuTTY-User-Key-File-[123]: [a-z0-9@.-]{3,40}[\r\n\\nr]{1,4}Encryption: [a-z0-9-]{4,20}", "PuTTY documentation, PPK file format")
        .positive(&[
            "PuTTY-User-Key-File-2: ssh-rsa\r\nEncryption: none", // gitleaks:allow
            "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: aes256-cbc", // gitleaks:allow
        ])
        .negative(&["PuTTY-User-Key-File-2: ", "PuTTY-User-Key-File-4: ssh-rsa\nEncryption: none"]),
    rule("private-key-pem-base64", "Private key (PEM in base64)", r"LS0tLS1CRUdJTi(?:BQUklWQVRFIEtFWS0tLS0t|BSU0EgUFJJVkFURSBLRVktLS0t|BFQyBQUklWQVRFIEtFWS0tLS0t|BEU0EgUFJJVkFURSBLRVktLS0t|BPUEVOU1NIIFBSSVZBVEUgS0VZLS0t|BFTkNSWVBURUQgUFJJVkFURSBLRVktLS0t|BQR1AgUFJJVkFURSBLRVkgQkxPQ0stLS0t)[A-Za-z0-9+/]{40,}={0,2}", "RFC 7468 in RFC 4648 base64")
        .positive(&[
            "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "LS0tLS1CRUdJTiBFQyBQUklWQVRFIEtFWS0tLS0tAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0KQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQQ==", "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCkFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="]),
    rule("private-key-xml", "Private key (XML)", r"<InverseQ>[A-Za-z0-9+/=\r\n\t ]{40,}</InverseQ>", "W3C XML Key Management and .NET, RSAKeyValue")
        .positive(&[
            "<InverseQ>AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA</InverseQ>", // gitleaks:allow
        ])
        .negative(&["<InverseQ>...</InverseQ>", "<Modulus>AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA</Modulus>"]),
    rule("wireguard-key", "WireGuard private or preshared key", r"(?:Private|Preshared)Key[ \t]{0,4}=[ \t]{0,4}[A-Za-z0-9+/]{43}=", "wg(8), Configuration file format")
        .positive(&[
            "PrivateKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", // gitleaks:allow
            "PresharedKey=aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a=", // gitleaks:allow
        ])
        .negative(&["PublicKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "PrivateKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]),
    rule("openvpn-static-key", "OpenVPN static key", r#"-----BEGIN OpenVPN [A-Za-z0-9 -]{4,24}key[A-Za-z0-9 ]{0,6}-----[ \t\r\n\\nr"'+,]{1,40}[A-Za-z0-9+/]{32}"#, "OpenVPN manual, Static key")
        .positive(&[
            "-----BEGIN OpenVPN Static key V1-----\naaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["-----BEGIN OpenVPN Static key V1-----\naaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "-----BEGIN OpenVPN Static key V1-----\n..."]),
    rule("kubernetes-bootstrap-secret", "Kubernetes bootstrap token", r"token-id: {1,4}[a-z0-9]{6}[ \t\r\n]{1,20}token-secret: {1,4}[a-z0-9]{16}", "Kubernetes docs, Bootstrap tokens")
        .positive(&[
            "token-id: aaaaaa\n  token-secret: bbbbbbbbbbbbbbbb", // gitleaks:allow
        ])
        .negative(&["token-id: aaaaaa\n  token-secret: bbbbbbbbbbbbbbb", "token-id: aaaaa\n  token-secret: bbbbbbbbbbbbbbbb"]),
    rule("jwe", "JSON Web Encryption token", r"eyJ[A-Za-z0-9_-]{10,1000}\.[A-Za-z0-9_-]{0,1000}\.[A-Za-z0-9_-]{16}\.[A-Za-z0-9_-]{8,4000}\.[A-Za-z0-9_-]{22}", "RFC 7516, Compact serialization")
        .positive(&[
            "eyJAAAAAAAAAAAAAAAAAAAA..bbbbbbbbbbbbbbbb.cccccccccccccccccccc.dddddddddddddddddddddd", // gitleaks:allow
            "eyJAAAAAAAAAAAAAAAAAAAA.eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee.bbbbbbbbbbbbbbbb.cccccccccccccccccccc.dddddddddddddddddddddd", // gitleaks:allow
        ])
        .negative(&["eyJAAAAAAAAAAAAAAAAAAAA..bbbbbbbbbbbbbbb.", "eyKAAAAAAAAAAAAAAAAAAAA..bbbbbbbbbbbbbbbb.cccccccccccccccccccc.dddddddddddddddddddddd"]),
    rule("jwt", "JSON Web Token", r"eyJ[A-Za-z0-9_+/=-]{10,1000}\.[A-Za-z0-9_+/=-]{10,}\.[A-Za-z0-9_+/=-]{10,1500}", "RFC 7519")
        .checked(check::jwt)
        .positive(&[
            "eyJaaaaaaaaaaaaaaaaaaaa.eyJbbbbbbbbbbbbbbbbbbbb.ccccccccccccccccccccccccccccccccccccccccccc", // gitleaks:allow
            "eyJAAAAAAAAAAAAAAAAAAAA.bbbbbbbbbbbbbbbbbbbb.cccccccccccccccccccc", // gitleaks:allow
        ])
        .negative(&["eyJaaaaaaaaaaaaaaaaaaaa.ccccccccc", "eyKaaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbbbbbb.cccccccccccccccccccc"]),
    rule("jwt-unsecured", "JSON Web Token without signature", r"eyJ[A-Za-z0-9_-]{10,1000}\.eyJ[A-Za-z0-9_-]{10,}\.?", "RFC 7519, Unsecured JWTs")
        .positive(&[
            "eyJaaaaaaaaaaaaaaaaaaaa.eyJbbbbbbbbbbbbbbbbbbbb.", // gitleaks:allow
            "eyJaaaaaaaaaaaaaaaaaaaa.eyJbbbbbbbbbbbbbbbbbbbb", // gitleaks:allow
        ])
        .negative(&["eyJaaaaaaaaaaaaaaaaaaaa.eyKbbbbbbbbbbbbbbbbbbbb", "eyJaaaaaaaaaaaaaaaaaaaa.eyJbbbbbbbbb"]),
    rule("jwt-spaced", "JSON Web Token, header with white space", r"\b(?:ew[o0]|eyA)[A-Za-z0-9_=-]{12,1000}\.(?:ey|ew)[A-Za-z0-9_=-]{12,}\.[A-Za-z0-9_-]{12,1500}", "RFC 7519; header with a space or a new line after its brace")
        .positive(&[
            "ewogICaaaaaaaaaaaaaaaaaaaa.ewogICbbbbbbbbbbbbbbbbbbbb.cccccccccccccccccccc", // gitleaks:allow
        ])
        .negative(&["ewogICaaaaaaaaaaaaaaaaaaaa.fwogICbbbbbbbbbbbbbbbbbbbb.cccccccccccccccccccc", "ewogICaaaaaaaaaaaaaaaaaaaa.ewogICbbbbbbbbbbbbbbbbbbbb"]),
    rule("jwt-loose", "JSON Web Token", r"\bey[A-Za-z0-9]{17,1000}\.ey[A-Za-z0-9_/-]{17,}\.[A-Za-z0-9_/-]{10,1500}", "RFC 7519; as invented samples write it")
        .positive(&[
            "eyaaaaaaaaaaaaaaaaaaaa.eybbbbbbbbbbbbbbbbbbbb.cccccccccccccccccccc", // gitleaks:allow
        ])
        .negative(&["eyaaaaaaaaaaaaaaaa.eybbbbbbbbbbbbbbbbbbbb.cccccccccccccccccccc", "eyaaaaaaaaaaaaaaaaaaaa.exbbbbbbbbbbbbbbbbbbbb.cccccccccccccccccccc"]),
    rule("jwt-base64", "JSON Web Token (in base64)", r"ZXlK(?:aGJHY2lPaU|MGVYQWlPaU|cmFXUWlPa|bGJtTWlPaU|amRIa2lPaU|NE5YUWlPa|aGNIVWlPaU|cWEzVWlPaU)[A-Za-z0-9+/_-]{40,}={0,2}", "RFC 7519 in RFC 4648 base64; headers that begin with alg, typ, kid, enc, cty, x5t, apu, jku")
        .positive(&[
            "ZXlKaGJHY2lPaUAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ZXlKMGVYQWlPaUaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["ZXlKaGJHY2lPaUAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "ZXlLaGJHY2lPaUAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("bearer-jwt", "Bearer JWT", r"(?:[Bb]earer|BEARER)[ \t+]{1,4}[A-Za-z0-9_.~+/-]{60}[A-Za-z0-9_.~+/=-]{0,}", "RFC 6750, b64token; sixty characters are fewer than the shortest signed JWT has")
        .positive(&[
            "Bearer AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "bearer eyJaaaaaaaaaaaaaaaaa.eyJbbbbbbbbbbbbbbbbbbbbbbbbbbb.cccccccccccccccccccccc_cccccccccccccccccccc", // gitleaks:allow
            "Bearer  eyJ0000000000000000000000000000000000000000000000.eyJ1111111111111111111111.2222222222222222-_", // gitleaks:allow
        ])
        .negative(&["Bearer AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "bearer of the ring", "BearerAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "Bearer: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    // Not what stands in the RFC and in every manual: `Aladdin:open sesame`, `s6BhdRkqt3:...`, `user:pass...` and `username:password`.
    rule("authorization-basic", "Authorization header with a password", r#"[Aa]uthorization["' \t]{0,4}[:=,][ \t"'`]{0,6}[Bb]asic {1,4}[A-Za-z0-9+/]{12,}={0,2}"#, "RFC 7617")
        .unless(check::placeholder_basic)
        .positive(&[
            "Authorization: Basic YWRtaW46aHVudGVyMg==", // gitleaks:allow
            "authorization: Basic YWxpY2U6Y29ycmVjdCBob3JzZQ==", // gitleaks:allow
            "Authorization: Basic AAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic dXNlcm5hbWU6cGFzc3dvcmQ=", "Authorization: Basic czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3", "Authorization: Basic auth", "Authorization: Basic authentication"]),
    rule("authorization-token", "Authorization header with a token", r#"[Aa]uthorization["']?[:=][ \t]{0,4}["']?(?:[Bb]earer|BEARER|[Tt]oken)[ \t]{1,4}[A-Za-z0-9_~+/=-]{20,}"#, "RFC 6750, RFC 9110")
        .unless(check::placeholder_token)
        .positive(&[
            "Authorization: Bearer aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "authorization: token AAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "Authorization=Bearer aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["Authorization: Bearer AAAAAAAAAAAAAAAAAAA", "Authorization: Bearer YOUR_ACCESS_TOKEN_GOES_HERE", "Authorization: Bearer eyJhbGciOiJIUzI1NiIs...", "Authorization: Bearer $TOKEN"]),
    rule("api-key-header", "API key in a header", r#"\b[Xx]-[Aa][Pp][Ii]-[Kk][Ee][Yy]["']?:[ \t]{0,4}["']?[A-Za-z0-9_~+/=-]{20,}"#, "OpenAPI specification, API keys; as most services name it")
        .unless(check::placeholder_token)
        .positive(&[
            "X-API-Key: aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "x-api-key: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["X-API-Key: AAAAAAAAAAAAAAAAAAA", "x-api-key: your_api_key_goes_in_here_please", "x-api-keys: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("curl-user-password", "Password in a curl call", r#"curl[^\r\n]{0,160}[ \t](?:-u|--user)[ \t=]{1,2}["']?[A-Za-z0-9_.@%+-]{1,64}:[!#%&*+,./-9:;=?-Z^_a-z|~-]{6,128}"#, "curl man page, --user")
        .unless(check::placeholder_last)
        .positive(&[
            "curl -u alice:hunter2", // gitleaks:allow
            "curl -X POST --user \"ci-bot:aB3xY9q", // gitleaks:allow
            "curl -s -u 'alice:correcthorse", // gitleaks:allow
        ])
        .negative(&["curl -u alice:short", "curl -u username:password", "curl -u $USER:$PASSWORD", "docker run -u 1000000:1000000"]),
    // A password has six characters at least and is not the word that stands for one in manuals (password, passwd, postgres).
    rule("url-password-http", "Password in a URL", r"https?://[A-Za-z0-9._%+~!=-]{0,64}:[!#-&*+\-.0-;=?A-Z\^_a-z|~]{6,80}@[A-Za-z0-9_\[.-][A-Za-z0-9_.:-]{0,200}", "RFC 3986, User information")
        .unless(check::placeholder_password)
        .positive(&[
            "https://alice:hunter2@example.com", // gitleaks:allow
            "http://:s3cr3t@proxy.example.org:3128", // gitleaks:allow
        ])
        .negative(&["https://user:pass@example.com", "https://joe:password@example.com", "https://user:${PASSWORD}@example.com", "https://user:%s@example.com", "https://user:***@example.com", "https://example.com:8080/@path"]),
    rule("url-password-mongodb", "MongoDB connection string", r"mongodb(?:\+srv)?://[A-Za-z0-9._%+~!=-]{0,64}:[!#-&*+\-.0-;=?A-Z\^_a-z|~]{6,80}@[A-Za-z0-9_\[.-][A-Za-z0-9_.:-]{0,200}", "MongoDB manual, Connection strings")
        .unless(check::placeholder_password)
        .positive(&[
            "mongodb+srv://alice:hunter2@cluster0.example.net", // gitleaks:allow
            "mongodb://root:s3cr3t@db.example.org:27017", // gitleaks:allow
        ])
        .negative(&["mongodb://localhost:27017/a@b", "mongodb://alice@db.example.org"]),
    rule("url-password-postgres", "PostgreSQL connection string", r"postgres(?:ql)?://[A-Za-z0-9._%+~!=-]{0,64}:[!#-&*+\-.0-;=?A-Z\^_a-z|~]{6,80}@[A-Za-z0-9_\[.-][A-Za-z0-9_.:-]{0,200}", "PostgreSQL documentation, Connection URIs")
        .unless(check::placeholder_password)
        .positive(&[
            "postgres://alice:hunter2@db.example.org", // gitleaks:allow
            "postgresql://postgres:s3cr3t@10.0.0.1:5432", // gitleaks:allow
        ])
        .negative(&["postgres://postgres:postgres@localhost:5432", "postgresql://scott:tiger@localhost"]),
    rule("url-password-mysql", "MySQL or MariaDB connection string", r"(?:mysql|mariadb)://[A-Za-z0-9._%+~!=-]{0,64}:[!#-&*+\-.0-;=?A-Z\^_a-z|~]{6,80}@[A-Za-z0-9_\[.-][A-Za-z0-9_.:-]{0,200}", "MySQL documentation, URI-like connection strings")
        .unless(check::placeholder_password)
        .positive(&[
            "mysql://root:hunter2@db.example.org:3306", // gitleaks:allow
            "mariadb://alice:s3cr3t@10.0.0.1", // gitleaks:allow
        ])
        .negative(&["mysql://localhost:3306", "mysql://root@localhost"]),
    rule("url-password-redis", "Redis connection string", r"rediss?://[A-Za-z0-9._%+~!=-]{0,64}:[!#-&*+\-.0-;=?A-Z\^_a-z|~]{6,80}@[A-Za-z0-9_\[.-][A-Za-z0-9_.:-]{0,200}", "IANA registration of the scheme redis")
        .unless(check::placeholder_password)
        .positive(&[
            "redis://:hunter2@cache.example.org:6379", // gitleaks:allow
            "rediss://default:s3cr3t@10.0.0.1:6380", // gitleaks:allow
        ])
        .negative(&["redis://:pass@localhost", "redis://localhost:6379"]),
    rule("url-password-amqp", "AMQP connection string", r"amqps?://[A-Za-z0-9._%+~!=-]{0,64}:[!#-&*+\-.0-;=?A-Z\^_a-z|~]{6,80}@[A-Za-z0-9_\[.-][A-Za-z0-9_.:-]{0,200}", "RabbitMQ docs, URI specification")
        .unless(check::placeholder_password)
        .positive(&[
            "amqp://alice:hunter2@mq.example.org:5672", // gitleaks:allow
            "amqps://ci:s3cr3t@10.0.0.1", // gitleaks:allow
        ])
        .negative(&["amqp://guest:guest@localhost:5672", "amqp://localhost:5672"]),
    rule("url-password-sqlserver", "SQL Server connection string", r"(?:mssql|sqlserver)://[A-Za-z0-9._%+~!=-]{0,64}:[!#-&*+\-.0-;=?A-Z\^_a-z|~]{6,80}@[A-Za-z0-9_\[.-][A-Za-z0-9_.:-]{0,200}", "go-mssqldb, Connection parameters")
        .unless(check::placeholder_password)
        .positive(&[
            "mssql://sa:hunter2@db.example.org", // gitleaks:allow
            "sqlserver://sa:s3cr3t@10.0.0.1:1433", // gitleaks:allow
        ])
        .negative(&["mssql://sa@localhost", "sqlserver://localhost:1433"]),
    rule("url-password-clickhouse", "ClickHouse connection string", r"clickhouse://[A-Za-z0-9._%+~!=-]{0,64}:[!#-&*+\-.0-;=?A-Z\^_a-z|~]{6,80}@[A-Za-z0-9_\[.-][A-Za-z0-9_.:-]{0,200}", "ClickHouse docs, Connection strings")
        .unless(check::placeholder_password)
        .positive(&[
            "clickhouse://default:hunter2@db.example.org:9440", // gitleaks:allow
        ])
        .negative(&["clickhouse://default:@localhost", "clickhouse://default:password@localhost"]),
    rule("url-password-oracle", "Oracle connection string", r"oracle://[A-Za-z0-9._%+~!=-]{0,64}:[!#-&*+\-.0-;=?A-Z\^_a-z|~]{6,80}@[A-Za-z0-9_\[.-][A-Za-z0-9_.:-]{0,200}", "SQLAlchemy docs, Engine configuration")
        .unless(check::placeholder_password)
        .positive(&[
            "oracle://alice:hunter2@db.example.org:1521", // gitleaks:allow
        ])
        .negative(&["oracle://scott:tiger@localhost", "oracle://localhost:1521"]),
    rule("url-password-snowflake", "Snowflake connection string", r"snowflake://[A-Za-z0-9._%+~!=-]{0,64}:[!#-&*+\-.0-;=?A-Z\^_a-z|~]{6,80}@[A-Za-z0-9_\[.-][A-Za-z0-9_.:-]{0,200}", "Snowflake docs, SQLAlchemy toolkit")
        .unless(check::placeholder_password)
        .positive(&[
            "snowflake://alice:hunter2@account-name", // gitleaks:allow
        ])
        .negative(&["snowflake://alice:password@account", "snowflake://alice@account"]),
    rule("url-password-cockroachdb", "CockroachDB connection string", r"cockroachdb://[A-Za-z0-9._%+~!=-]{0,64}:[!#-&*+\-.0-;=?A-Z\^_a-z|~]{6,80}@[A-Za-z0-9_\[.-][A-Za-z0-9_.:-]{0,200}", "CockroachDB docs, SQLAlchemy dialect")
        .unless(check::placeholder_password)
        .positive(&[
            "cockroachdb://alice:hunter2@db.example.org:26257", // gitleaks:allow
        ])
        .negative(&["cockroachdb://root:@localhost", "cockroachdb://alice:password@localhost"]),
    rule("url-password-smtp", "Mail server connection string", r"smtps?://[A-Za-z0-9._%+~!=-]{0,64}:[!#-&*+\-.0-;=?A-Z\^_a-z|~]{6,80}@[A-Za-z0-9_\[.-][A-Za-z0-9_.:-]{0,200}", "RFC 5092 and common practice, mail server URLs")
        .unless(check::placeholder_password)
        .positive(&[
            "smtp://alice:hunter2@mail.example.org:587", // gitleaks:allow
            "smtps://ci:s3cr3t@10.0.0.1", // gitleaks:allow
        ])
        .negative(&["smtp://user:pass@localhost", "smtp://localhost:25"]),
    rule("url-password-ldap", "LDAP connection string", r"ldaps?://[A-Za-z0-9._%+~!=-]{0,64}:[!#-&*+\-.0-;=?A-Z\^_a-z|~]{6,80}@[A-Za-z0-9_\[.-][A-Za-z0-9_.:-]{0,200}", "RFC 4516; user information as clients write it")
        .unless(check::placeholder_password)
        .positive(&[
            "ldap://alice:hunter2@ldap.example.org", // gitleaks:allow
            "ldaps://ci:s3cr3t@10.0.0.1:636", // gitleaks:allow
        ])
        .negative(&["ldap://user:pass@localhost", "ldap://localhost:389"]),
    rule("url-password-ftp", "File server password in a URL", r"(?:ftps|sftp|ftp)://[A-Za-z0-9._%+~!=-]{0,64}:[!#-&*+\-.0-;=?A-Z\^_a-z|~]{6,80}@[A-Za-z0-9_\[.-][A-Za-z0-9_.:-]{0,200}", "RFC 1738, FTP")
        .unless(check::placeholder_password)
        .positive(&[
            "ftp://alice:hunter2@files.example.org", // gitleaks:allow
            "sftp://ci:s3cr3t@10.0.0.1", // gitleaks:allow
        ])
        .negative(&["ftp://joe:password@proxy.example.com", "ftp://files.example.org"]),
    rule("url-password", "Password in a URL", r"[A-Za-z0-9.+-]{3}://[A-Za-z0-9._%+~!=-]{1,64}:[!#-&*+\-.0-;=?A-Z\^_a-z|~]{6,80}@[A-Za-z0-9_\[.-][A-Za-z0-9_.:-]{0,200}", "RFC 3986, User information")
        .unless(check::placeholder_password)
        .positive(&[
            "ssh://alice:hunter2@host.example.org", // gitleaks:allow
            "git://ci:s3cr3t@10.0.0.1:9418", // gitleaks:allow
        ])
        .negative(&["ssh://alice@host.example.org", "abc://username:password@example.com", "abc://scott:tiger@example.com", "cvs://:pserver:anoncvs@"]),
    rule("ado-connection-string", "Connection string with a password (ADO, ODBC)", r#"(?:[Ss][Ee][Rr][Vv][Ee][Rr]|[Dd][Aa][Tt][Aa] [Ss][Oo][Uu][Rr][Cc][Ee]|[Uu][Ss][Ee][Rr] ?[Ii][Dd]|[Uu][Ii][Dd]|[Uu][Ss][Ee][Rr][Nn][Aa][Mm][Ee]|[Hh][Oo][Ss][Tt]) ?= ?[^"'`\r\n<>{}()=;]{1,128};[^"'`\r\n<>{}()]{0,300}(?:[Pp][Aa][Ss][Ss][Ww][Oo][Rr][Dd]|[Pp][Ww][Dd]) ?= ?[A-Za-z0-9!#&*+?^_|~@:/-][A-Za-z0-9!#$&*+.?^_|~@:/%=-]{4,}"#, "Microsoft Learn, Connection string syntax")
        .positive(&[
            "Server=db.example.org;Database=app;User Id=sa;Password=hunter2", // gitleaks:allow
            "Data Source=10.0.0.1;uid=sa;pwd=s3cr3t", // gitleaks:allow
        ])
        .negative(&["Server=db.example.org;Database=app;Integrated Security=true", "Server=db.example.org;User Id=sa;Password=${PW}"]),
    rule("libpq-connection-string", "PostgreSQL connection string", r"\bhost=[A-Za-z0-9_./-]{1,100} [A-Za-z0-9_=.:/ -]{0,160}password=(?:[!#&+\-0-9?-OQ-Z\^_a-oq-z|~][!#%&*+\--:?-Z\^_a-z|~]{3,120}|[Pp][!#%&*+\--:?@B-NP-Z\^_b-np-z|~][!#%&*+\--:?-Z\^_a-z|~]{2,120}|[Pp][Aa][!#%&*+\--:?-RT-Z\^_a-rt-z|~][!#%&*+\--:?-Z\^_a-z|~]{1,120}|[Pp][Aa][Ss][!#%&*+\--:?-RT-Z\^_a-rt-z|~][!#%&*+\--:?-Z\^_a-z|~]{0,120}|[Pp][Aa][Ss][Ss][!#%&*+\--:?-VX-Z\^_a-vx-z|~][!#%&*+\--:?-Z\^_a-z|~]{0,120}|[Pp][Aa][Ss][Ss][Ww][!#%&*+\--:?-NP-Z\^_a-np-z|~][!#%&*+\--:?-Z\^_a-z|~]{0,120}|[Pp][Aa][Ss][Ss][Ww][Oo][!#%&*+\--:?-QS-Z\^_a-qs-z|~][!#%&*+\--:?-Z\^_a-z|~]{0,120}|[Pp][Aa][Ss][Ss][Ww][Oo][Rr][!#%&*+\--:?-CE-Z\^_a-ce-z|~][!#%&*+\--:?-Z\^_a-z|~]{0,120}|[Pp][Aa][Ss][Ss][Ww][Oo][Rr][Dd][!#%&*+\--:?-Z\^_a-z|~][!#%&*+\--:?-Z\^_a-z|~]{0,120}|[Pp][Oo][!#%&*+\--:?-RT-Z\^_a-rt-z|~][!#%&*+\--:?-Z\^_a-z|~]{1,120}|[Pp][Oo][Ss][!#%&*+\--:?-SU-Z\^_a-su-z|~][!#%&*+\--:?-Z\^_a-z|~]{0,120}|[Pp][Oo][Ss][Tt][!#%&*+\--:?-FH-Z\^_a-fh-z|~][!#%&*+\--:?-Z\^_a-z|~]{0,120}|[Pp][Oo][Ss][Tt][Gg][!#%&*+\--:?-QS-Z\^_a-qs-z|~][!#%&*+\--:?-Z\^_a-z|~]{0,120}|[Pp][Oo][Ss][Tt][Gg][Rr][!#%&*+\--:?-DF-Z\^_a-df-z|~][!#%&*+\--:?-Z\^_a-z|~]{0,120}|[Pp][Oo][Ss][Tt][Gg][Rr][Ee][!#%&*+\--:?-RT-Z\^_a-rt-z|~][!#%&*+\--:?-Z\^_a-z|~]{0,120}|[Pp][Oo][Ss][Tt][Gg][Rr][Ee][Ss][!#%&*+\--:?-Z\^_a-z|~][!#%&*+\--:?-Z\^_a-z|~]{0,120})", "PostgreSQL documentation, Keyword/value connection strings")
        .unless(check::placeholder_last)
        .positive(&[
            "host=db.example.org user=a password=hunter2", // gitleaks:allow
        ])
        .negative(&["host=db.example.org user=a dbname=b", "host=db.example.org user=a password=$PW"]),
    rule("pgpass-line", "PostgreSQL password file", r":5432:[A-Za-z0-9_*.-]{1,64}:[A-Za-z0-9_.-]{1,64}:[A-Za-z0-9!#&+?^_|~@-][A-Za-z0-9!#$&*+.?^_|~@%=-]{5,}", "PostgreSQL documentation, The password file")
        .unless(check::placeholder_last)
        .positive(&[
            ":5432:*:alice:hunter2", // gitleaks:allow
        ])
        .negative(&["localhost:5432:NAME:USER:PASSWORD", ":5432:*:alice:", ":5432:alice:hunter2"]),
    rule("hash-md5crypt", "Password hash (md5crypt)", r"\$(?:1|apr1|md5)\$[A-Za-z0-9./]{1,16}\$[A-Za-z0-9/][A-Za-z0-9./]{21}", "crypt(5), md5crypt; Apache htpasswd")
        .positive(&[
            "$1$aaaaaaaa$bbbbbbbbbbbbbbbbbbbbbb", // gitleaks:allow
        ])
        .negative(&["$1$aaaaaaaa$bbbbbbbbbbbbbbbbbbbbb", "$2$aaaaaaaa$bbbbbbbbbbbbbbbbbbbbbb"]),
    rule("hash-bcrypt", "Password hash (bcrypt)", r"(?:\$2\$|\$2[abxy]\$)[0-9]{1,2}\$[A-Za-z0-9./]{53}", "crypt(5), bcrypt")
        .positive(&[
            "$2b$12$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "$2y$10$aB3./aB3./aB3./aB3./aB3./aB3./aB3./aB3./aB3./aB3./aaa", // gitleaks:allow
        ])
        .negative(&["$2b$12$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "$2c$12$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("hash-sha-crypt", "Password hash (sha256crypt, sha512crypt)", r"\$(?:5\$(?:rounds=[0-9]{1,9}\$)?[A-Za-z0-9./]{1,16}\$[A-Za-z0-9./]{43}|6\$(?:rounds=[0-9]{1,9}\$)?[A-Za-z0-9./]{1,16}\$[A-Za-z0-9./]{86})", "crypt(5), sha256crypt and sha512crypt")
        .positive(&[
            "$5$aaaaaaaa$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", // gitleaks:allow
            "$6$rounds=5000$aaaaaaaa$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", // gitleaks:allow
        ])
        .negative(&["$5$aaaaaaaa$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "$6$aaaaaaaa$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"]),
    rule("hash-yescrypt", "Password hash (yescrypt, scrypt)", r"\$(?:y|gy|7)\$[A-Za-z0-9./]{2,24}\$[A-Za-z0-9./]{1,86}\$[A-Za-z0-9./]{43}", "crypt(5), yescrypt")
        .positive(&[
            "$y$j9T$aaaaaaaaaaaaaaaaaaaaaa$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", // gitleaks:allow
        ])
        .negative(&["$y$j9T$aaaaaaaaaaaaaaaaaaaaaa$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "$z$j9T$aaaaaaaaaaaaaaaaaaaaaa$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"]),
    rule("hash-argon2", "Password hash (Argon2)", r"\$argon2(?:id|i|d)\$(?:v=[0-9]{1,3}\$)?m=[0-9]{1,9},t=[0-9]{1,9},p=[0-9]{1,5}\$[A-Za-z0-9+/]{8,}\$[A-Za-z0-9+/]{20,1000}", "PHC string format specification")
        .positive(&[
            "$argon2id$v=19$m=65536,t=3,p=4$aaaaaaaaaaaaaaaaaaaaaa$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", // gitleaks:allow
            "$argon2i$m=4096,t=3,p=1$aaaaaaaaaaa$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", // gitleaks:allow
        ])
        .negative(&["$argon2id$v=19$m=65536,t=3,p=4$salt$hash", "$argon3id$v=19$m=65536,t=3,p=4$aaaaaaaaaaaaaaaaaaaaaa$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"]),
    rule("hash-scrypt", "Password hash (scrypt)", r"\$scrypt\$(?:ln|n)=[0-9]{1,9},r=[0-9]{1,5},p=[0-9]{1,5}\$[A-Za-z0-9+/.]{8,}={0,2}\$[A-Za-z0-9+/.]{20,1000}", "PHC string format specification; passlib docs")
        .positive(&[
            "$scrypt$ln=16,r=8,p=1$aaaaaaaaaaaaaaaaaaaaaa$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", // gitleaks:allow
        ])
        .negative(&["$scrypt$ln=16,r=8,p=1$salt$hash", "$scrypt$aaaaaaaaaaaaaaaaaaaaaa$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"]),
    rule("hash-pbkdf2", "Password hash (PBKDF2)", r"\$pbkdf2(?:-sha(?:1|256|512))?\$[0-9]{2,9}\$[A-Za-z0-9+/.]{8,}={0,2}\$[A-Za-z0-9+/.]{20,1000}", "passlib docs, PBKDF2")
        .positive(&[
            "$pbkdf2-sha256$29000$aaaaaaaaaaaaaaaaaaaaaa$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", // gitleaks:allow
        ])
        .negative(&["$pbkdf2-sha256$29000$salt$hash", "$pbkdf3-sha256$29000$aaaaaaaaaaaaaaaaaaaaaa$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"]),
    rule("hash-werkzeug", "Password hash (Werkzeug)", r"(?:pbkdf2:sha(?:1|256|512):[0-9]{3,9}|scrypt:[0-9]{3,9}:[0-9]{1,3}:[0-9]{1,3})\$[A-Za-z0-9]{6,64}\$[a-f0-9]{40,}", "Werkzeug docs, generate_password_hash")
        .positive(&[
            "pbkdf2:sha256:600000$aaaaaaaa$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", // gitleaks:allow
            "scrypt:32768:8:1$aaaaaaaa$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", // gitleaks:allow
        ])
        .negative(&["pbkdf2:sha256:600000$aaaaaaaa$hash", "pbkdf2:sha257:600000$aaaaaaaa$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"]),
    rule("hash-phpass", "Password hash (phpass, Drupal)", r"\$(?:[PH]\$[A-Za-z0-9./]{31}|S\$[A-Za-z0-9./]{52})", "Openwall phpass; Drupal API, user_hash_password")
        .positive(&[
            "$P$BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB", // gitleaks:allow
            "$S$DDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDD", // gitleaks:allow
        ])
        .negative(&["$P$BBBBBBBBBBBBBBBBBBBBBBBBBBBBBB", "$S$DDDDDDDDDDDDDDDDDDDDDDDDDDDDDD"]),
    rule("hash-ldap", "Password hash (LDAP)", r"\{(?:SSHA|SMD5|SHA|SSHA256|SSHA512|PBKDF2-SHA256|PBKDF2-SHA512)\}[A-Za-z0-9+/.$]{24,}={0,2}", "OpenLDAP Software FAQ, Password storage schemes")
        .positive(&[
            "{SSHA}aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "{SSHA512}aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3==", // gitleaks:allow
        ])
        .negative(&["{SSHA}aaaaaaaaaaaaaaaaaaaaaaa", "{SSHB}aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("hash-scram", "Password verifier (SCRAM)", r"SCRAM-SHA-256\$[0-9]{3,7}:[A-Za-z0-9+/=]{8,64}\$[A-Za-z0-9+/=]{20,60}:[A-Za-z0-9+/=]{20,60}", "PostgreSQL documentation, pg_authid")
        .positive(&[
            "SCRAM-SHA-256$4096:aaaaaaaaaaaaaaaaaaaaaa==$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb=:ccccccccccccccccccccccccccccccccccccccccccc=", // gitleaks:allow
        ])
        .negative(&["SCRAM-SHA-256$4096:salt$stored:server", "SCRAM-SHA-255$4096:aaaaaaaaaaaaaaaaaaaaaa==$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb=:ccccccccccccccccccccccccccccccccccccccccccc="]),
    rule("hash-mssql", "Password hash (SQL Server)", r"\b0x0[12]00[A-Fa-f0-9]{8}(?:[A-Fa-f0-9]{128}|[A-Fa-f0-9]{40}|[A-Fa-f0-9]{80})\b", "Microsoft Learn, PWDENCRYPT")
        .positive(&[
            "0x0200AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "0x0100aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["0x0200AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "0x0300AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("hash-dcc2", "Cached domain credential", r"\$DCC2\$[0-9]{3,7}#[A-Za-z0-9@._ -]{1,64}#[a-f0-9]{32}", "observed: as hashcat reads it")
        .positive(&[
            "$DCC2$10240#alice#aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["$DCC2$10240#alice#aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "$DCC3$10240#alice#aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("netrc", "Password in a netrc file", r"(?:machine[ \t]{1,8}[A-Za-z0-9._:-]{1,128}|default)[ \t\r\n]{1,16}login[ \t]{1,8}[!-~]{1,128}[ \t\r\n]{1,16}password[ \t]{1,8}[!-;=?-~][!-;=?-~]{3,200}", "GNU inetutils, The .netrc file")
        .unless(check::placeholder_netrc)
        .positive(&[
            "machine example.org login alice password hunter2", // gitleaks:allow
            "machine api.example.org\n  login ci\n  password s3cr3t", // gitleaks:allow
            "default login alice password hunter2", // gitleaks:allow
        ])
        .negative(&["machine example.org login alice", "machine foo.domain.com login bar password pass", "machine foo.domain.com login bar password password", "machine example.org login alice password <token>", "machine example.org login alice password ${TOKEN}"]),
    rule("npmrc-auth-global", "Registry credential in an .npmrc file", r#"\b_auth[ \t]{0,4}=[ \t]{0,4}["']?[A-Za-z0-9+/]{16,}={1,2}"#, "npm docs, npmrc, Auth related configuration")
        .positive(&[
            "_auth = aaaaaaaaaaaaaaaa=", // gitleaks:allow
            "_auth=aB3aB3aB3aB3aB3aB3aB3aB3==", // gitleaks:allow
        ])
        .negative(&["_auth=aaaaaaaaaaaaaaaa", "_auth=${AUTH}"]),
    rule("filezilla-password", "Password in a FileZilla configuration", r#"<Pass(?: encoding="(?:base64|radix64)")?>[ ]{0,4}[^<>\r\n $%]{4,128}[ ]{0,4}</Pass>"#, "FileZilla wiki, Site manager file")
        .positive(&[
            "<Pass>hunter2</Pass>", // gitleaks:allow
            "<Pass encoding=\"base64\">aaaaaaaa</Pass>", // gitleaks:allow
            "<Pass encoding=\"base64\">aB3aB3aB==</Pass>", // gitleaks:allow
        ])
        .negative(&["<Pass>$x</Pass>", "<Pass encoding=\"base64\"></Pass>", "<Pass encoding=\"crypt\">aaaaaaaa</Pass>"]),
    rule("powershell-secure-string", "Password in a PowerShell script", r#"[Cc]onvert[Tt]o-[Ss]ecure[Ss]tring (?:-[Ss]tring )?["'][^"'$\r\n<>]{5,128}["'] (?:-[Ff]orce )?-[Aa]s[Pp]lain[Tt]ext"#, "Microsoft Learn, ConvertTo-SecureString")
        .positive(&[
            "ConvertTo-SecureString \"hunter2\" -AsPlainText", // gitleaks:allow
            "ConvertTo-SecureString -String 'P@ssword' -Force -AsPlainText", // gitleaks:allow
        ])
        .negative(&["ConvertTo-SecureString \"$env:PW\" -AsPlainText", "ConvertTo-SecureString $password -AsPlainText -Force"]),
    rule("psexec-password", "Password in a PsExec call", r"[Pp][Ss][Ee]xec(?:64)?(?:\.exe)? [^\r\n]{0,120}-u [^ \r\n]{1,64} -p [A-Za-z0-9!#&*+.?^_|~@-]{5,}", "Microsoft Learn, PsExec")
        .positive(&[
            "psexec \\\\host -u admin -p hunter2", // gitleaks:allow
            "PsExec64.exe \\\\host -u a -p s3cr3t", // gitleaks:allow
        ])
        .negative(&["psexec \\\\host -u admin cmd", "psexec \\\\host -u admin -p <pw>"]),
    rule("viserver-password", "Password in a PowerCLI call", r#"Connect-VIServer [^\r\n]{0,120}-Password ["']?[A-Za-z0-9!#&*+.?^_|~@-]{5,}"#, "VMware PowerCLI cmdlet reference, Connect-VIServer")
        .positive(&[
            "Connect-VIServer -Server a -User b -Password hunter2", // gitleaks:allow
        ])
        .negative(&["Connect-VIServer -Server a -User b -Password $pw", "Connect-VIServer -Server a"]),
    rule("wordpress-salt", "WordPress key or salt", r#"(?:AUTH|LOGGED_IN|NONCE)_(?:KEY|SALT)["'], {1,8}["'][^"'\r\n]{60,70}["']"#, "WordPress docs, Security keys")
        .positive(&[
            "AUTH_KEY',  'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'", // gitleaks:allow
            "NONCE_SALT', 'aB3 aB3 aB3 aB3 aB3 aB3 aB3 aB3 aB3 aB3 aB3 aB3 aB3 aB3 aB3 aB3 '", // gitleaks:allow
        ])
        .negative(&["define( 'AUTH_KEY',  'put your unique phrase here'", "define( 'AUTH_NAME',  'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'"]),
    rule("aspnet-protected-cookie", "ASP.NET protected cookie", r"CfDJ8[A-Za-z0-9_-]{60,}", "Microsoft Learn, ASP.NET Core data protection; magic header 09 F0 C9 F0")
        .positive(&[
            "CfDJ8aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "CfDJ8aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["CfDJ8aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "CfDJ9aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("express-session-cookie", "Express session cookie", r"connect\.sid=s(?:%3A|:)[A-Za-z0-9_-]{20,64}\.[A-Za-z0-9%+/]{20,}", "express-session docs, Cookie signature")
        .positive(&[
            "connect.sid=s%3Aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", // gitleaks:allow
        ])
        .negative(&["connect.sid=s%3Aaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "connect.sid=a"]),
    rule("aws-presigned-url", "AWS presigned URL", r"X-Amz-Credential=[A-Za-z0-9%/_-]{16,160}&[A-Za-z0-9%&=/._+-]{20,3000}X-Amz-Signature=[a-f0-9]{64}", "AWS S3 API reference, Authenticating requests: query parameters")
        .positive(&[
            "X-Amz-Credential=AAAAAAAAAAAAAAAAAAAA%2F20240101%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20240101T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["X-Amz-Credential=AAAAAAAAAAAAAAAAAAAA&X-Amz-Date=20240101T000000Z&X-Amz-Signature=", "X-Amz-Date=20240101T000000Z&X-Amz-Signature=<sig>"]),
    rule("otpauth-url", "One-time password secret", r#"otpauth://[th]otp/[^ \t\r\n"'<>`{}]{0,300}[?&]secret=[A-Za-z2-7=]{16,}"#, "Google Authenticator wiki, Key URI format")
        .positive(&[
            "otpauth://totp/a:b?secret=AAAAAAAAAAAAAAAA", // gitleaks:allow
            "otpauth://hotp/a?issuer=b&secret=ABCDEFG7ABCDEFG7ABCDEFG7ABCDEFG7", // gitleaks:allow
        ])
        .negative(&["otpauth://totp/a:b?secret=", "otpauth://totq/a:b?secret=AAAAAAAAAAAAAAAA"]),
    rule("otpauth-migration", "One-time password secrets", r"otpauth-migration://offline\?data=[A-Za-z0-9%+/=_-]{20,}", "Google Authenticator, Export accounts")
        .positive(&[
            "otpauth-migration://offline?data=aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["otpauth-migration://offline?data=", "otpauth-migration://online?data=aaaaaaaaaaaaaaaaaaaa"]),
    rule("wifi-password", "Wi-Fi password", r#"WIFI:[A-Z]:[^;\r\n"]{1,64};[A-Z]:[^;\r\n"]{1,64};P:[!-:<-~]{8,63};"#, "Wi-Fi Alliance, WPA3 specification, URI format")
        .positive(&[
            "WIFI:T:WPA;S:net;P:hunter2hunter2;", // gitleaks:allow
        ])
        .negative(&["WIFI:T:nopass;S:net;;", "WIFI:T:WPA;S:net;P:short;"]),
    rule("tls-key-log", "TLS session key", r"CLIENT_RANDOM [a-f0-9]{64} [a-f0-9]{96}", "RFC 9850, SSLKEYLOGFILE format")
        .positive(&[
            "CLIENT_RANDOM aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", // gitleaks:allow
        ])
        .negative(&["CLIENT_RANDOM aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "CLIENT_RANDOM_X aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("nostr-private-key", "Nostr private key", r"\bnsec1[ac-hj-np-z02-9]{58}", "Nostr NIP-19, bech32-encoded entities")
        .positive(&[
            "nsec1aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["nsec1aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "npub1aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("react-app-password", "Credential in a React build variable", r#"REACT_APP_[A-Z0-9_]{0,40}PASS(?:WORD)?[ ]{0,4}=[ ]{0,4}["']?[A-Za-z0-9!#&*+.?^_|~@-]{6,}"#, "Create React App docs, Custom environment variables")
        .positive(&[
            "REACT_APP_DB_PASSWORD=hunter2", // gitleaks:allow
            "REACT_APP_PASS   =  \"s3cr3ts", // gitleaks:allow
        ])
        .negative(&["REACT_APP_PASSWORD=$PW", "REACT_APP_USER=alice12"]),
    rule("dotnet-network-credential", "Password in a .NET call", r#"[Nn]etwork[Cc]redential {0,4}\( {0,4}"[^"\r\n<>{}]{3,64}" {0,4}, {0,4}"[^"\r\n<>{}]{6,64}""#, "Microsoft Learn, NetworkCredential")
        .positive(&[
            "NetworkCredential(\"alice\", \"hunter2\"", // gitleaks:allow
        ])
        .negative(&["NetworkCredential(user, password)", "NetworkCredential(\"alice\", \"\""]),
    rule("dotnet-directory-entry", "Password in a .NET call", r#"DirectoryEntry {0,4}\( {0,4}"[^"\r\n<>{}]{3,128}" {0,4}, {0,4}"[^"\r\n<>{}]{3,64}" {0,4}, {0,4}"[^"\r\n<>{}]{5,64}""#, "Microsoft Learn, DirectoryEntry")
        .positive(&[
            "DirectoryEntry(\"LDAP://dc.example.org\", \"alice\", \"hunter2\"", // gitleaks:allow
        ])
        .negative(&["DirectoryEntry(\"LDAP://dc.example.org\")", "DirectoryEntry(\"LDAP://dc.example.org\", user, \"hunter2\""]),
];
