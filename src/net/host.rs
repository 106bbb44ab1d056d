//! The addresses of a host of our own, such as the database's; targets have `net::resolve`. By hickory-resolver (`/etc/hosts`, `resolv.conf`), since getaddrinfo does not
//! work in a statically linked binary; where it does work, it is asked second, for names that only it knows.

use std::net::IpAddr;

use hickory_resolver::TokioResolver;

/// The addresses of `host`, at least one, in the order to be tried. Asked anew for each connection: after a failover
/// the name may lead elsewhere.
pub async fn addresses(host: &str) -> Result<Vec<IpAddr>, std::io::Error> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    match by_hickory(host).await {
        Ok(addresses) if !addresses.is_empty() => Ok(addresses),
        other => by_system(host)
            .await
            .or_else(|_| other.map_err(std::io::Error::other))
            .and_then(|addresses| match addresses.is_empty() {
                true => Err(std::io::Error::other("the name has no address")),
                false => Ok(addresses),
            }),
    }
}

async fn by_hickory(host: &str) -> Result<Vec<IpAddr>, hickory_resolver::net::NetError> {
    let resolver = TokioResolver::builder_tokio()?.build()?;
    Ok(resolver.lookup_ip(host).await?.iter().collect())
}

#[cfg(not(target_feature = "crt-static"))]
async fn by_system(host: &str) -> Result<Vec<IpAddr>, std::io::Error> {
    Ok(tokio::net::lookup_host((host, 0))
        .await?
        .map(|address| address.ip())
        .collect())
}

#[cfg(target_feature = "crt-static")]
async fn by_system(_host: &str) -> Result<Vec<IpAddr>, std::io::Error> {
    Err(std::io::Error::other("the name does not resolve"))
}
