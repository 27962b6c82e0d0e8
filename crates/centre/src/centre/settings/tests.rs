//! What cannot be meant, and the documented and shipped examples.

use super::*;

fn read(text: &str) -> Settings {
    toml::from_str(text).unwrap()
}

const OWN: &str = "[[domain]]\nname = 'own'\n[domain.provider.own]\nca_name = 'CA'\n";

#[test]
fn what_cannot_be_meant_is_named() {
    let tenant = "[[tenant]]\nname = 'acme'\ndomains = ['own']\n";
    assert_eq!(read(&format!("{OWN}{tenant}")).problem(), None);
    let says = |text: &str| read(text).problem().unwrap();
    assert_eq!(says("domain = []\ntenant = []").0, "domain");
    assert_eq!(says(&format!("{OWN}{OWN}{tenant}")).1, "is there twice");
    assert_eq!(says(&format!("{OWN}{tenant}{tenant}")).0, "tenant acme");
    let other = tenant.replace("'own'", "'other'");
    assert!(says(&format!("{OWN}{other}")).1.contains("not there"));
    let foreign = "[[domain]]\nname = 'x'\n[domain.provider.cmp]\nurl = 'http://a/'\nreference = 'r'\nsecret = { path = 's' }\n";
    assert!(says(&format!("{foreign}[[tenant]]\nname='a'\ndomains=[]\n")).1.contains("anchors"));
    let zero = ["workers", "foreign_workers", "refusals_per_minute", "order_life_s", "feed_items"];
    for zero in zero {
        let text = format!("{OWN}{tenant}[limits]\n{zero} = 0\n");
        assert_eq!(says(&text).0, "limits", "{zero}");
    }
}

#[test]
fn the_documented_configuration_is_one() {
    let page = include_str!("../../../../../docs/protocols/centre.md");
    let (_, example) = page.split_once("```toml").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let mut table: toml::Table = toml::from_str(example).unwrap();
    let settings: Settings = table.remove("centre").unwrap().try_into().unwrap();
    assert_eq!(settings.problem(), None);
    assert_eq!(settings.domains.len(), 3);
}

#[test]
fn an_unknown_key_is_refused() {
    assert!(toml::from_str::<Settings>(&format!("{OWN}[[tenant]]\nname='a'\n")).is_err());
    assert!(toml::from_str::<Settings>("domains = []").is_err());
}

#[test]
fn the_example_says_the_defaults_and_what_is_commented_out_can_be_meant() {
    let text = include_str!("../../../config/centre.toml");
    let centre = |text: &str| -> Settings {
        let mut table: toml::Table = toml::from_str(text).unwrap();
        table.remove("centre").unwrap().try_into().unwrap()
    };
    let shipped = centre(text);
    assert_eq!(shipped.problem(), None);
    assert_eq!(format!("{:?}", shipped.limits), format!("{:?}", Limits::default()));
    let least = "[[centre.domain]]\nname = 'own'\n\
                 [centre.domain.provider.own]\nca_name = 'Example cloud CA'\n\
                 [[centre.tenant]]\nname = 'acme'\ndomains = ['own']\n";
    assert_eq!(format!("{shipped:?}"), format!("{:?}", centre(least)));
    // With everything that is commented out: keys of tables are checked by the parser.
    let is_setting = |line: &str| {
        let key = line.split(" = ").next().unwrap_or_default();
        let plain = key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        line.starts_with('[') || (line.contains(" = ") && plain)
    };
    let all: Vec<&str> = text
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| is_setting(rest)).unwrap_or(line))
        .collect();
    let all = centre(&all.join("\n"));
    assert_eq!(all.problem(), None);
    assert!(all.root_key.is_some() && all.tokens().count() == 1 && all.domains.len() == 3);
}

#[test]
fn the_example_has_every_setting() {
    let text = include_str!("../../../config/centre.toml");
    let keys = |table: &str| -> Vec<String> {
        let error = toml::from_str::<Settings>(table).unwrap_err().to_string();
        let (_, names) = error.split_once(" field `nobody`, expected ").unwrap();
        names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let provider = |kind: &str| format!("[[domain]]\n[domain.provider.{kind}]\nnobody = 1\n");
    for table in [
        "nobody = 1\n".to_owned(),
        "[limits]\nnobody = 1\n".to_owned(),
        "[[domain]]\nnobody = 1\n".to_owned(),
        "[[tenant]]\nnobody = 1\n".to_owned(),
        provider("own"),
        provider("own.token"),
        provider("cmp"),
        provider("acme"),
    ] {
        for key in keys(&table) {
            let said = text.lines().any(|line| {
                let line = line.trim_start_matches("# ");
                let name = line.trim_matches(['[', ']']).rsplit('.').next().unwrap_or_default();
                line.starts_with(&format!("{key} = ")) || (line.starts_with('[') && name == key)
            });
            let inner = text.contains(&format!(".{key}."));
            assert!(said || inner, "{key} is not in config/centre.toml");
        }
    }
}
