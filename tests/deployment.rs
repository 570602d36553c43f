//! Promise: what `deploy/` has for Kubernetes is accepted by an API server, and its parts fit each other, the configuration
//! beside it and what docs/operations.md has one create before.
//!
//! Method: the API's own schemas, of the oldest and the newest release that `kubernetes-validate` has, strictly; then names,
//! ports, labels and paths are held against each other.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step fails the test")]

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const LISTENERS: [&str; 5] = ["bootstrap", "vnfci", "management", "http", "admin"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn directory() -> PathBuf {
    root().join("deploy/kubernetes")
}

/// Runs Python with what `make tools` installs, gives what it printed.
fn python(arguments: &[&str]) -> String {
    let python = root().join("target/python/bin/python");
    assert!(python.exists(), "{} is not there: run `make tools`", python.display());
    let output = Command::new(python).arg("-B").args(arguments).current_dir(directory()).output().unwrap();
    let (told, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{told}\n{err}", output.status);
    told.into_owned() + &err
}

/// The documents of a YAML file.
fn documents(file: &str) -> Vec<Value> {
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    serde_json::from_str(&python(&["-c", script, file])).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn named<'a>(values: &'a [Value], name: &str) -> &'a Value {
    values.iter().find(|value| value["name"] == name).unwrap_or_else(|| panic!("{name}: {values:?}"))
}

/// All manifests, as one.
struct Manifests {
    kustomization: Value,
    resources: Vec<Value>,
    configuration: toml::Table,
}

impl Manifests {
    fn read() -> Self {
        let kustomization = documents("kustomization.yaml").remove(0);
        let resources =
            list(&kustomization["resources"]).iter().flat_map(|file| documents(text(file))).collect();
        let configuration = std::fs::read_to_string(directory().join("keybroker.toml")).unwrap();
        Self { kustomization, resources, configuration: configuration.parse().unwrap() }
    }

    fn of_kind(&self, kind: &str) -> Vec<&Value> {
        let found: Vec<&Value> = self.resources.iter().filter(|resource| resource["kind"] == kind).collect();
        assert!(!found.is_empty(), "{kind}");
        found
    }

    fn pod(&self) -> &Value {
        &self.of_kind("StatefulSet")[0]["spec"]["template"]
    }

    fn broker(&self) -> &Value {
        named(list(&self.pod()["spec"]["containers"]), "keybroker")
    }

    fn setting(&self, section: &str, name: &str) -> &str {
        self.configuration[section][name].as_str().unwrap()
    }
}

#[test]
fn every_manifest_is_what_the_api_takes() {
    let Manifests { kustomization, resources, .. } = Manifests::read();
    let listed: BTreeSet<&str> = list(&kustomization["resources"]).iter().map(text).collect();
    let present: BTreeSet<String> = (std::fs::read_dir(directory()).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml") && name != "kustomization.yaml")
        .collect();
    assert_eq!(listed, present.iter().map(String::as_str).collect());
    let versions = "import kubernetes_validate as v; print(v.utils.all_versions()[0], v.latest_version())";
    let versions = python(&["-c", versions]);
    for version in versions.split_whitespace() {
        let mut arguments = vec!["-m", "kubernetes_validate", "--strict", "-k", version];
        arguments.extend(&listed);
        let told = python(&arguments);
        // As many as there are were looked at.
        assert_eq!(told.matches(" passed for resource ").count(), resources.len(), "{told}");
    }
}

#[test]
fn services_budget_and_network_policy_choose_the_brokers_pods_and_ports() {
    let manifests = Manifests::read();
    let set = manifests.of_kind("StatefulSet")[0];
    let labels = &manifests.pod()["metadata"]["labels"];
    let mut selectors = vec![&set["spec"]["selector"]["matchLabels"]];
    selectors.extend(manifests.of_kind("Service").iter().map(|service| &service["spec"]["selector"]));
    selectors.push(&manifests.of_kind("PodDisruptionBudget")[0]["spec"]["selector"]["matchLabels"]);
    selectors.push(&manifests.of_kind("NetworkPolicy")[0]["spec"]["podSelector"]["matchLabels"]);
    for constraint in list(&manifests.pod()["spec"]["topologySpreadConstraints"]) {
        selectors.push(&constraint["labelSelector"]["matchLabels"]);
    }
    assert!(selectors.iter().all(|selector| *selector == labels), "{labels}: {selectors:?}");
    let services: Vec<&str> =
        manifests.of_kind("Service").iter().map(|service| text(&service["metadata"]["name"])).collect();
    assert!(services.contains(&text(&set["spec"]["serviceName"])), "{services:?}");
    // A drain evicts one, and one serves.
    assert_eq!(manifests.of_kind("PodDisruptionBudget")[0]["spec"]["minAvailable"], 1);
    assert!(set["spec"]["replicas"].as_u64().unwrap() >= 2);

    // Each listener's port is the configuration's, and whatever names a port names one of them.
    let ports = list(&manifests.broker()["ports"]);
    for listener in LISTENERS {
        let port = named(ports, listener)["containerPort"].as_u64().unwrap();
        assert_eq!(manifests.setting("listen", listener), format!("0.0.0.0:{port}"), "{listener}");
    }
    for service in manifests.of_kind("Service") {
        for port in list(&service["spec"]["ports"]) {
            assert_eq!(named(ports, text(&port["targetPort"]))["containerPort"], port["port"], "{port}");
        }
    }
    for rule in list(&manifests.of_kind("NetworkPolicy")[0]["spec"]["ingress"]) {
        for port in list(&rule["ports"]) {
            named(ports, text(&port["port"]));
        }
    }
}

#[test]
fn while_the_hsm_is_away_everything_but_first_claims_has_endpoints() {
    let manifests = Manifests::read();
    let services = manifests.of_kind("Service");
    let (mut ready, mut always) = (BTreeSet::new(), BTreeSet::new());
    for service in services.iter().filter(|service| service["spec"]["type"] == "LoadBalancer") {
        let served = list(&service["spec"]["ports"]).iter().map(|port| text(&port["name"]));
        if service["spec"]["publishNotReadyAddresses"] == true { &mut always } else { &mut ready }
            .extend(served);
        // Whoever asks it by its name finds the name in the listener's certificate.
        let name = format!(
            "{}.{}.svc",
            text(&service["metadata"]["name"]),
            text(&manifests.kustomization["namespace"])
        );
        let names = manifests.configuration["listen"]["server_names"].as_array().unwrap();
        for name in [format!("{name}.cluster.local"), name] {
            assert!(names.iter().any(|known| known.as_str() == Some(&name)), "{name}");
        }
    }
    // The admin port stays inside.
    assert_eq!((ready, always), (["bootstrap"].into(), ["vnfci", "management", "http"].into()));
    let http = named_resource(&services, "keybroker");
    assert!(manifests.setting("listen", "http_url").starts_with("http://keybroker.keybroker.svc:"), "{http}");
}

fn named_resource<'a>(resources: &[&'a Value], name: &str) -> &'a Value {
    resources.iter().find(|resource| resource["metadata"]["name"] == name).expect(name)
}

#[test]
fn probes_ask_the_admin_listener_for_what_it_answers() {
    let manifests = Manifests::read();
    let answered = include_str!("../src/server/http.rs");
    for (probe, path) in
        [("startupProbe", "/healthz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")]
    {
        let asked = &manifests.broker()[probe]["httpGet"];
        assert_eq!((&asked["path"], &asked["port"]), (&path.into(), &"admin".into()), "{probe}");
        assert!(answered.contains(&format!("\"{path}\"")), "{path}");
    }
}

#[test]
fn what_is_mounted_is_there_and_what_the_configuration_names_is_mounted() {
    let manifests = Manifests::read();
    let spec = &manifests.pod()["spec"];
    let volumes = list(&spec["volumes"]);
    let containers: Vec<&Value> =
        list(&spec["initContainers"]).iter().chain(list(&spec["containers"])).collect();
    let mounted: BTreeSet<&str> = (containers.iter())
        .flat_map(|container| list(&container["volumeMounts"]))
        .map(|mount| text(&mount["name"]))
        .collect();
    assert_eq!(mounted, volumes.iter().map(|volume| text(&volume["name"])).collect());

    // kustomize gives the map a name with its content's hash, and changes the reference: a new configuration is a new roll-out.
    let generated = list(&manifests.kustomization["configMapGenerator"]);
    let map = named(generated, text(&named(volumes, "configuration")["configMap"]["name"]));
    let mounts = list(&manifests.broker()["volumeMounts"]);
    assert!(list(&map["files"]).contains(&named(mounts, "configuration")["subPath"]), "{map}");
    let claim = &named(volumes, "audit")["persistentVolumeClaim"]["claimName"];
    named_resource(&manifests.of_kind("PersistentVolumeClaim"), text(claim));

    // What docs/operations.md has one create by hand has the names that are used here.
    let (secret, profiles) = (
        &named(volumes, "secrets")["secret"]["secretName"],
        &named(volumes, "profiles")["configMap"]["name"],
    );
    let documented = include_str!("../docs/operations.md").split_whitespace().collect::<Vec<_>>().join(" ");
    for created in [
        format!("create secret generic {} --from-file=pin --from-file=postgres-password", text(secret)),
        format!("create configmap {} --from-file=profiles/", text(profiles)),
        format!("kubectl create namespace {}", text(&manifests.kustomization["namespace"])),
    ] {
        assert!(documented.contains(&created), "{created}");
    }

    // The broker reads its configuration where the arguments say, and finds there what that names.
    let under = |volume: &str, path: &str| {
        let place = text(&named(mounts, volume)["mountPath"]);
        assert!(path.starts_with(place), "{path} is not in {place}");
    };
    let file = list(&manifests.broker()["args"]).last().unwrap();
    assert_eq!(file, &named(mounts, "configuration")["mountPath"]);
    under("state", text(file));
    under("own-secrets", manifests.setting("hsm", "pin_file"));
    under("own-secrets", manifests.setting("store", "password_file"));
    under("audit", manifests.setting("audit", "mirror"));
}

#[test]
fn every_container_is_confined_as_the_restricted_standard_demands() {
    let manifests = Manifests::read();
    let enforced = &manifests.of_kind("Namespace")[0]["metadata"]["labels"];
    assert_eq!(enforced["pod-security.kubernetes.io/enforce"], "restricted");
    let spec = &manifests.pod()["spec"];
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    for container in list(&spec["initContainers"]).iter().chain(list(&spec["containers"])) {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false, "{container}");
        assert_eq!(context["readOnlyRootFilesystem"], true, "{container}");
        assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]), "{container}");
        assert_eq!(container["image"], "keybroker");
    }
    named(list(&manifests.kustomization["images"]), "keybroker");
}
