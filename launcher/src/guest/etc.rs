//! Files of an image's `/etc` with the agent in them.

use crate::environment::{AGENT_HOME, AGENT_USER};
use crate::user::User;

/// Where toolchains look for the system's certificates when no variable tells them.
pub const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Its own lines, without another user of this number or name, and the agent.
pub fn passwd(own: &str, user: User) -> String {
    let mut text = kept(own, user.uid);
    if text.is_empty() {
        text.push_str("root:x:0:0:root:/root:/bin/sh\n");
    }
    text.push_str(&format!(
        "{AGENT_USER}:x:{}:{}::{AGENT_HOME}:/bin/sh\n",
        user.uid, user.gid
    ));
    text
}

/// As `passwd`, of groups.
pub fn group(own: &str, user: User) -> String {
    let mut text = kept(own, user.gid);
    if text.is_empty() {
        text.push_str("root:x:0:\n");
    }
    text.push_str(&format!("{AGENT_USER}:x:{}:\n", user.gid));
    text
}

fn kept(own: &str, id: u32) -> String {
    let id = id.to_string();
    own.lines()
        .filter(|line| {
            let mut fields = line.split(':');
            let name = fields.next();
            !line.is_empty() && name != Some(AGENT_USER) && fields.nth(1) != Some(id.as_str())
        })
        .map(|line| format!("{line}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_a_user_of_its_image() {
        let user = User {
            uid: 1000,
            gid: 100,
        };
        let own = "root:x:0:0:root:/root:/bin/bash\nnode:x:1000:1000::/home/node:/bin/bash\n";
        assert_eq!(
            passwd(own, user),
            "root:x:0:0:root:/root:/bin/bash\nagent:x:1000:100::/home/agent:/bin/sh\n"
        );
        assert_eq!(group("", user), "root:x:0:\nagent:x:100:\n");
    }
}
