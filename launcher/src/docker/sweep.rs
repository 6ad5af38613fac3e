//! What dead launchers left in the engine, found by its labels.

use std::collections::{BTreeMap, HashMap};
use std::io;

use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, ListNetworksOptionsBuilder,
};

use super::container;
use super::engine::{Engine, EngineError, Kind};
use super::names::{self, Life, SLUG};
use super::network;

/// Of one bottle.
#[derive(Clone, Debug, Default)]
pub struct Left {
    pub containers: Vec<String>,
    pub networks: Vec<String>,
}

#[derive(Debug, Default)]
pub struct Found {
    /// Their launchers are dead.
    pub dead: BTreeMap<String, Left>,
    /// Bottles of others, whose launchers cannot be judged from here.
    pub spared: Vec<String>,
}

/// Looks for everything that has our labels.
pub async fn look(engine: &Engine) -> Result<Found, EngineError> {
    let filters = HashMap::from([("label".to_owned(), vec![SLUG.to_owned()])]);
    let options = ListContainersOptionsBuilder::default()
        .all(true)
        .filters(&filters)
        .build();
    let containers = engine
        .ask("list containers", |docker| async move {
            docker.list_containers(Some(options)).await
        })
        .await?;
    let options = ListNetworksOptionsBuilder::default()
        .filters(&filters)
        .build();
    let networks = engine
        .ask("list networks", |docker| async move {
            docker.list_networks(Some(options)).await
        })
        .await?;
    let mut found = Found::default();
    for container in containers {
        if let (Some(labels), Some(id)) = (container.labels, container.id) {
            found.add(&labels, |left| left.containers.push(id));
        }
    }
    for network in networks {
        if let (Some(labels), Some(id)) = (network.labels, network.id) {
            found.add(&labels, |left| left.networks.push(id));
        }
    }
    found.spared.sort();
    found.spared.dedup();
    Ok(found)
}

impl Found {
    fn add(&mut self, labels: &HashMap<String, String>, note: impl FnOnce(&mut Left)) {
        let Some(slug) = labels.get(SLUG) else { return };
        match names::life(labels) {
            Life::Alive => {}
            Life::Dead => note(self.dead.entry(slug.clone()).or_default()),
            Life::Unknown => self.spared.push(slug.clone()),
        }
    }
}

/// Removes what dead launchers left; the names of the bottles.
pub async fn sweep(engine: &Engine) -> Result<Vec<String>, EngineError> {
    let found = look(engine).await?;
    let mut removed = Vec::new();
    let mut first = None;
    for (slug, left) in found.dead {
        match remove(engine, left).await {
            Ok(()) => removed.push(slug),
            // The others go all the same.
            Err(error) => first = first.or(Some(error)),
        }
    }
    match first {
        None => Ok(removed),
        Some(error) => Err(error),
    }
}

async fn remove(engine: &Engine, left: Left) -> Result<(), EngineError> {
    for id in left.containers {
        container::remove_now(engine.clone(), id).await?;
    }
    for id in left.networks {
        let removed = network::remove_async(engine, &id).await;
        if let Err(error) = removed
            && error.kind != Kind::NotFound
        {
            return Err(error);
        }
    }
    Ok(())
}

/// Images of earlier launchers, which nothing runs from any more.
pub async fn old_images(engine: &Engine, current: &str) -> io::Result<()> {
    let filters = HashMap::from([
        ("label".to_owned(), vec![names::CONTENT.to_owned()]),
        (
            "reference".to_owned(),
            vec!["bot-bottle-sidecar".to_owned()],
        ),
    ]);
    let options = ListImagesOptionsBuilder::default()
        .filters(&filters)
        .build();
    let images = engine
        .ask("list images", |docker| async move {
            docker.list_images(Some(options)).await
        })
        .await?;
    for image in images {
        if image
            .labels
            .get(names::CONTENT)
            .is_some_and(|content| content == current)
        {
            continue;
        }
        let id = image.id;
        // One that is in use stays, and goes the next time.
        let _in_use = engine
            .change("remove an old image of the launcher", |docker| async move {
                docker
                    .remove_image(
                        &id,
                        None::<bollard::query_parameters::RemoveImageOptions>,
                        None,
                    )
                    .await
            })
            .await;
    }
    Ok(())
}
