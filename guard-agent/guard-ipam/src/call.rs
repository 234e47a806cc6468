//! The variables of a call, `CNI_*`.

use std::{collections::BTreeMap, env};

use crate::error::Error;

/// The namespace of a pod, in the words of runtimes of Kubernetes.
pub(crate) const NAMESPACE: &str = "K8S_POD_NAMESPACE";

/// The pod's name.
pub(crate) const POD: &str = "K8S_POD_NAME";

/// `CNI_COMMAND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// A container comes.
    Add,
    /// It goes, or has gone.
    Del,
    /// Is everything as ADD left it?
    Check,
    /// These containers are all there are.
    Gc,
    /// Could ADD work now?
    Status,
    /// What is spoken here?
    Version,
}

/// Which interface of which container a call is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_IFNAME`, the interface's name in the container.
    pub ifname: String,
    /// `CNI_ARGS`, taken apart.
    pub args: BTreeMap<String, String>,
}

impl Command {
    /// Reads it from the environment.
    ///
    /// # Errors
    /// It is missing or none of the specification's.
    pub(crate) fn read() -> Result<Self, Error> {
        let word = variable("CNI_COMMAND")?;
        match word.as_str() {
            "ADD" => Ok(Self::Add),
            "DEL" => Ok(Self::Del),
            "CHECK" => Ok(Self::Check),
            "GC" => Ok(Self::Gc),
            "STATUS" => Ok(Self::Status),
            "VERSION" => Ok(Self::Version),
            _ => Err(Error::Variable { name: "CNI_COMMAND", why: format!("{word:?} is unknown") }),
        }
    }
}

impl Call {
    /// Reads it from the environment.
    ///
    /// # Errors
    /// A variable is missing, or not what the specification allows.
    pub(crate) fn read() -> Result<Self, Error> {
        let args = match env::var_os("CNI_ARGS") {
            Some(_) => variable("CNI_ARGS")?,
            None => String::new(),
        };
        Self::new(variable("CNI_CONTAINERID")?, variable("CNI_IFNAME")?, &args)
    }

    /// The pod that the container is a sandbox of, by the name that the next one has too. What
    /// cannot be the name of a pod names none.
    pub(crate) fn workload(&self) -> Option<String> {
        // DNS labels, and dots between them: RFC 1123, as Kubernetes has it.
        let name = |key: &str, most: usize| {
            let byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
            let name = self.args.get(key)?;
            let good = (1..=most).contains(&name.len()) && name.bytes().all(byte);
            good.then_some(name)
        };
        Some(format!("{}/{}", name(NAMESPACE, 63)?, name(POD, 253)?))
    }

    fn new(container: String, ifname: String, args: &str) -> Result<Self, Error> {
        // CNI specification, "Parameters": alphanumeric, then also '_', '.' and '-'.
        let id = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let first = container.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !first || !container.bytes().all(id) || container.len() > 253 {
            let why = format!("{container:?} is not a container id");
            return Err(Error::Variable { name: "CNI_CONTAINERID", why });
        }
        // dev_valid_name() in net/core/dev.c, without what would not fit into a lease's key.
        let odd = |byte: u8| !byte.is_ascii_graphic() || byte == b'/' || byte == b':';
        if matches!(ifname.as_str(), "" | "." | "..")
            || ifname.len() > 15
            || ifname.bytes().any(odd)
        {
            let why = format!("{ifname:?} is not an interface name");
            return Err(Error::Variable { name: "CNI_IFNAME", why });
        }
        Ok(Self { container, ifname, args: pairs(args)? })
    }
}

/// `KEY=value;KEY=value`.
fn pairs(text: &str) -> Result<BTreeMap<String, String>, Error> {
    let pair = |word: &str| match word.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => {
            Err(Error::Variable { name: "CNI_ARGS", why: format!("{word:?} is not KEY=value") })
        }
    };
    text.split(';').filter(|word| !word.is_empty()).map(pair).collect()
}

fn variable(name: &'static str) -> Result<String, Error> {
    env::var(name).map_err(|error| {
        let why = match error {
            env::VarError::NotPresent => "it is not set".to_owned(),
            env::VarError::NotUnicode(_) => "it is not UTF-8".to_owned(),
        };
        Error::Variable { name, why }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_what_the_specification_allows() {
        let call = |id: &str, ifname: &str, args| Call::new(id.into(), ifname.into(), args);
        let good = call("4f.a_b-c", "eth0", "IP=10.8.64.9;K8S_POD_NAME=web-0;").unwrap();
        assert_eq!(good.args["IP"], "10.8.64.9");
        assert_eq!(good.args["K8S_POD_NAME"], "web-0");
        for (id, ifname, args) in [
            ("", "eth0", ""),
            ("-x", "eth0", ""),
            ("../etc", "eth0", ""),
            ("a b", "eth0", ""),
            ("a", "", ""),
            ("a", "..", ""),
            ("a", "eth0/1", ""),
            ("a", "sixteen-bytes-xx", ""),
            ("a", "eth0", "IP"),
        ] {
            let refused = call(id, ifname, args);
            assert!(matches!(refused, Err(Error::Variable { .. })), "{id:?} {ifname:?} {args:?}");
        }
    }
}
