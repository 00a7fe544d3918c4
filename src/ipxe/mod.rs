pub fn loader_for(
    c: &crate::config::Ipxe,
    f: &crate::model::Firmware,
    m: Option<&crate::model::Machine>,
) -> String {
    m.and_then(|m| m.loader.clone())
        .or_else(|| c.loaders.iter().find(|(a, _)| *a == f.arch).map(|(_, l)| l.clone()))
        .unwrap_or_else(|| f.loader.to_string())
}
pub fn has(_: &crate::config::Ipxe, _: &str) -> bool {
    true
}
