//! A certificate in the form that a client wants.

use trustfleet_pki::Certificate;

use crate::api_access::objects;
use crate::api_house::House;

#[actix::test]
async fn a_certificate_is_to_be_had_as_json_pem_or_der_alone() {
    let house = House::open().await;
    let [viewer, _, _] = house.tenant("acme").await;
    let id = objects(&house).await["certificate"].clone();
    let path = format!("/v1/tenants/acme/certificates/{id}");
    let get = async |path: &str, accept: &str| house.raw("GET", path, Some(&viewer), &[("accept", accept)], None).await;

    let shown = get(&path, "*/*").await.expect(200);
    assert_eq!((shown.content_type.as_str(), shown.str("/id")), ("application/json", id.as_str()));
    let pem = shown.str("/pem").to_owned();
    let der = Certificate::from_pem(&pem).unwrap().as_der().to_vec();
    let alone = get(&path, "application/x-pem-file").await.expect(200);
    assert_eq!((alone.content_type.as_str(), &alone.text), ("application/x-pem-file", &pem));
    assert_eq!(alone.headers["vary"], "accept");
    let chain = get(&format!("{path}?chain=true"), "application/x-pem-file").await.expect(200);
    assert_eq!(chain.text, pem.clone() + shown.str("/chain_pem"));
    let raw = get(&path, "application/pkix-cert, application/json;q=0.5").await.expect(200);
    assert_eq!(
        (raw.content_type.as_str(), raw.text.as_str()),
        ("application/pkix-cert", &*String::from_utf8_lossy(&der))
    );

    let refused = get(&path, "text/html").await.expect(406);
    assert!(refused.str("/detail").contains("application/pkix-cert"), "{}", refused.text);
    assert_eq!(
        get(&format!("{path}?chain=true"), "application/pkix-cert").await.expect(422).violations(),
        ["chain choice"]
    );
    assert_eq!(get(&format!("{path}?chain=maybe"), "*/*").await.expect(422).violations(), ["chain choice"]);
    house.close().await;
}
