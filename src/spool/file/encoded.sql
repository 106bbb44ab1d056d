select encoded from batch where id = ?1
