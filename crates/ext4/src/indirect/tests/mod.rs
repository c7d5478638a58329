mod damage;
mod model;
mod store;
